// What ServiceAccounts may do: what the Roles and ClusterRoles of the folder say that are bound to them, as Kubernetes' RBAC
// reads them, and nothing else. Pure.

import type { ClusterRole, ClusterRoleBinding, PolicyRule, Subject } from 'kubernetes-types/rbac/v1.js'
import type { KubernetesObject } from '../../lib/k8s/objects.ts'
import { userOf, type ServiceAccount } from './access.ts'
import { builtIn, type Kind } from './kinds.ts'
import { groupsOf } from './service-accounts.ts'

export type Deed = {
  readonly verb: string
  readonly group: string
  /** With its subresource, such as `pods/log`. */
  readonly resource: string
  /** `''` for all, and for what belongs to the cluster. */
  readonly namespace: string
  /** `''` where it names none. */
  readonly name: string
}
export type ListObjects = (kind: Kind) => readonly KubernetesObject[]

/** A binding in a namespace counts there only, whatever kind of role it names. */
export function mayByRoles(account: ServiceAccount, deed: Deed, list: ListObjects): boolean {
  const rolesOf = (bindings: string, namespace: string | undefined): readonly KubernetesObject[] =>
    (list(builtIn(bindings)) as readonly ClusterRoleBinding[])
      .filter(({ metadata, subjects }) => {
        const here = namespace === undefined || metadata?.namespace === namespace
        return here && itemsOf(subjects).some((subject) => isOf(subject, account, metadata?.namespace))
      })
      .flatMap(({ roleRef, metadata }) => {
        const isRole = roleRef?.kind === 'Role'
        return list(builtIn(isRole ? 'Role' : 'ClusterRole')).filter(
          (role) =>
            role.metadata?.name === roleRef?.name && (!isRole || role.metadata?.namespace === metadata?.namespace),
        )
      })
  const roles = [
    ...rolesOf('ClusterRoleBinding', undefined),
    ...(deed.namespace === '' ? [] : rolesOf('RoleBinding', deed.namespace)),
  ]
  return roles.some((role) => itemsOf((role as ClusterRole).rules).some((rule) => allows(rule, deed)))
}

function isOf(
  { kind, name, namespace = '' }: Subject,
  account: ServiceAccount,
  bindingNamespace: string | undefined,
): boolean {
  switch (kind) {
    case 'ServiceAccount':
      return name === account.name && (namespace || bindingNamespace) === account.namespace
    case 'Group':
      return groupsOf(account).includes(name)
    case 'User':
      return name === userOf(account)
    default:
      return false
  }
}

function allows({ verbs, apiGroups, resources, resourceNames }: PolicyRule, deed: Deed): boolean {
  const has = (list: readonly string[] | undefined, ...values: readonly string[]) =>
    ['*', ...values].some((value) => itemsOf(list).includes(value))
  const [, subresource] = deed.resource.split('/')
  return (
    has(verbs, deed.verb) &&
    has(apiGroups, deed.group) &&
    has(resources, deed.resource, ...(subresource === undefined ? [] : [`*/${subresource}`])) &&
    (itemsOf(resourceNames).length === 0 || itemsOf(resourceNames).includes(deed.name))
  )
}

/** Nobody has checked the fields of these kinds. */
const itemsOf = <T>(value: readonly T[] | undefined): readonly T[] => (Array.isArray(value) ? value : [])
