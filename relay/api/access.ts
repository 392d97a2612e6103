// Who may do what: everybody with a certificate reads; a node writes its own status and its own Leases; members of
// system:masters write any node's. Nothing else is written through this API by anyone. A ServiceAccount may what its roles
// say (roles.ts).

import { GROUP_MASTERS, type Identity } from '../../lib/identity.ts'
import { resourceNameOf } from './kinds.ts'
import type { ResourceRequest } from './request.ts'
import type { Failure } from './status.ts'

export type ServiceAccount = { readonly kind: 'service account'; readonly namespace: string; readonly name: string }
/** Of this API: whom a certificate names, or a token. */
export type Caller = Identity | ServiceAccount

/** Where nodes keep Leases. */
const LEASE_NAMESPACES: readonly string[] = ['kube-node-lease', 'fulmar-system']

/**
 * @param name of the object; that of the body for a create.
 * @param nodes names of all nodes, so that `a` does not own the Lease of `a-b`.
 */
export function mayAccess(caller: Identity, request: ResourceRequest, name: string, nodes: Iterable<string>): boolean {
  if (caller.kind === 'anonymous') return false
  if (request.verb === 'get' || request.verb === 'list' || request.verb === 'watch') return true
  if (caller.kind === 'user') return caller.groups.includes(GROUP_MASTERS)
  const { resource, subresource, namespace, verb } = request
  if (verb === 'delete' || verb === 'deletecollection') return false
  // Whether the pod is on this node, is seen by whoever answers.
  if (resource.kind === 'ServiceAccount') return subresource === 'token'
  if (resource.kind === 'Node') return subresource === 'status' && name === caller.node
  if (resource.kind !== 'Lease' || subresource !== undefined || !LEASE_NAMESPACES.includes(namespace)) return false
  return ownsLease(caller.node, name, nodes)
}

/** The Lease `NAME`, `NAME-…` or `…-NAME` belongs to the node; of several that it could belong to, to the longest name. */
export function ownsLease(node: string, lease: string, nodes: Iterable<string>): boolean {
  const fits = (name: string) => lease === name || lease.startsWith(`${name}-`) || lease.endsWith(`-${name}`)
  if (!fits(node)) return false
  for (const other of nodes) if (other.length > node.length && fits(other)) return false
  return true
}

/** The name that Kubernetes knows a caller by. */
export function userOf(caller: Caller): string {
  switch (caller.kind) {
    case 'node':
      return `system:node:${caller.node}`
    case 'user':
      return caller.user
    case 'service account':
      return `system:serviceaccount:${caller.namespace}:${caller.name}`
    case 'anonymous':
      return 'system:anonymous'
  }
}

/** In Kubernetes' words. */
export function forbidden(caller: Caller, request: ResourceRequest, name: string): Failure {
  const { resource, subresource, namespace, verb } = request
  const what = subresource === undefined ? resource.plural : `${resource.plural}/${subresource}`
  const scope = namespace === '' ? 'at the cluster scope' : `in the namespace ${JSON.stringify(namespace)}`
  const quoted = name === '' ? '' : ` ${JSON.stringify(name)}`
  return {
    code: 403,
    reason: 'Forbidden',
    message:
      `${resourceNameOf(resource)}${quoted} is forbidden: User ${JSON.stringify(userOf(caller))} cannot ${verb} resource ` +
      `${JSON.stringify(what)} in API group ${JSON.stringify(resource.group)} ${scope}`,
    details: { name, group: resource.group, kind: resource.plural },
  }
}
