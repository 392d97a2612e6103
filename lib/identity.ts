// Who speaks: the identity that a verified client certificate proves, and nothing else does.
//   O=system:nodes, CN=system:node:NAME   a node
//   any other subject                     a user, with its organisations as groups (as Kubernetes reads certificates)

export type Identity =
  | { readonly kind: 'node'; readonly node: string }
  | { readonly kind: 'user'; readonly user: string; readonly groups: readonly string[] }
  | { readonly kind: 'anonymous' }

/** Members may do everything, as in Kubernetes. */
export const GROUP_MASTERS = 'system:masters'
const GROUP_NODES = 'system:nodes'
const NODE_PREFIX = 'system:node:'

/** A certificate's subject as Node's tls gives it: a field is a string, or an array if it stands there twice. */
export type Subject = { readonly CN?: string | string[]; readonly O?: string | string[] }

/** @param subject of a certificate that was verified against our CA; undefined where none was presented or it failed. */
export function identityOf(subject: Subject | undefined): Identity {
  const names = [subject?.CN ?? []].flat()
  const groups = [subject?.O ?? []].flat()
  const [user] = names
  if (user === undefined || names.length !== 1) return { kind: 'anonymous' }
  if (user.startsWith(NODE_PREFIX)) {
    const node = user.slice(NODE_PREFIX.length)
    return groups.includes(GROUP_NODES) && node !== '' ? { kind: 'node', node } : { kind: 'anonymous' }
  }
  return { kind: 'user', user, groups }
}
