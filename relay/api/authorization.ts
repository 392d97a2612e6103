// Whether a caller may: those with a certificate by what they are (access.ts), ServiceAccounts by their roles (roles.ts). Pure.

import { GROUP_MASTERS } from '../../lib/identity.ts'
import { mayAccess, type Caller } from './access.ts'
import type { ResourceRequest } from './request.ts'
import { mayByRoles, type ListObjects } from './roles.ts'
import { AUTHENTICATION_GROUP, TOKEN_REVIEWS } from './service-accounts.ts'

/**
 * @param name of the object; that of the body for a create.
 * @param nodes names of all nodes, for writes.
 * @param list among which roles are looked for.
 */
export function isAllowed(
  caller: Caller,
  asked: ResourceRequest,
  { name, nodes, list }: { readonly name: string; readonly nodes: Iterable<string>; readonly list: ListObjects },
): boolean {
  if (caller.kind !== 'service account') return mayAccess(caller, asked, name, nodes)
  const { resource, subresource, verb, namespace } = asked
  const path = subresource === undefined ? resource.plural : `${resource.plural}/${subresource}`
  return mayByRoles(caller, { verb, group: resource.group, resource: path, namespace, name }, list)
}

/** People with all rights, and whom a role lets. */
export function mayReview(caller: Caller, list: ListObjects): boolean {
  if (caller.kind === 'user') return caller.groups.includes(GROUP_MASTERS)
  const deed = { verb: 'create', group: AUTHENTICATION_GROUP, resource: TOKEN_REVIEWS, namespace: '', name: '' }
  return caller.kind === 'service account' && mayByRoles(caller, deed, list)
}
