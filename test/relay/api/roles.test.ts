import t from 'tap'
import type { KubernetesObject } from '../../../lib/k8s/objects.ts'
import { mayByRoles, type Deed } from '../../../relay/api/roles.ts'

const agent = { kind: 'service account', namespace: 'fulmar', name: 'agent' } as const
const rule = (verbs: string, groups: string, resources: string, names?: string) => ({
  verbs: verbs.split(' '),
  apiGroups: groups.split(' ').map((group) => (group === 'core' ? '' : group)),
  resources: resources.split(' '),
  ...(names !== undefined && { resourceNames: names.split(' ') }),
})
/** Of the cluster without a namespace. */
const scoped = (kind: 'Role' | 'RoleBinding', name: string, namespace: string) =>
  namespace === '' ? { kind: `Cluster${kind}`, metadata: { name } } : { kind, metadata: { name, namespace } }
const role = (name: string, namespace: string, ...rules: readonly object[]) => ({
  ...scoped('Role', name, namespace),
  rules,
})
const AGENT = { kind: 'ServiceAccount', name: 'agent', namespace: 'fulmar' }
const bound = (roleRef: string, subject: object = AGENT, namespace = '') => ({
  ...scoped('RoleBinding', 'b', namespace),
  roleRef: { kind: roleRef.split(' ')[0], name: roleRef.split(' ')[1] },
  subjects: [subject],
})
const reads = role('reads', '', rule('list watch', 'core', 'nodes pods'))
const all = role('all', '', rule('*', '*', '*'))

const rows: readonly (readonly [name: string, deed: string, allowed: boolean, ...objects: readonly object[]])[] = [
  ['nobody without a role', 'list core nodes', false],
  ['a role without a binding', 'list core nodes', false, reads],
  ['what its role says', 'list core nodes', true, reads, bound('ClusterRole reads')],
  ['in any namespace', 'watch core pods shop', true, reads, bound('ClusterRole reads')],
  ['no other verb', 'get core nodes', false, reads, bound('ClusterRole reads')],
  ['no other group', 'list apps pods', false, reads, bound('ClusterRole reads')],
  ['no subresource', 'list core pods/log', false, reads, bound('ClusterRole reads')],
  ['all', 'delete apps daemonsets/status x y', true, all, bound('ClusterRole all')],
  ['another account', 'list core nodes', false, reads, bound('ClusterRole reads', { ...AGENT, name: 'x' })],
  ['another namespace', 'list core nodes', false, reads, bound('ClusterRole reads', { ...AGENT, namespace: 'x' })],
  [
    'by its group',
    'list core nodes',
    true,
    reads,
    bound('ClusterRole reads', { kind: 'Group', name: 'system:serviceaccounts:fulmar' }),
  ],
  [
    'by its user name',
    'list core nodes',
    true,
    reads,
    bound('ClusterRole reads', { kind: 'User', name: 'system:serviceaccount:fulmar:agent' }),
  ],
  [
    'a binding in a namespace counts there',
    'list core pods fulmar',
    true,
    reads,
    bound('ClusterRole reads', { kind: 'ServiceAccount', name: 'agent' }, 'fulmar'),
  ],
  ['and not elsewhere', 'list core pods shop', false, reads, bound('ClusterRole reads', AGENT, 'fulmar')],
  ['nor for the cluster', 'list core nodes', false, reads, bound('ClusterRole reads', AGENT, 'fulmar')],
  [
    'a Role of its namespace',
    'get core pods fulmar',
    true,
    role('r', 'fulmar', rule('get', 'core', 'pods')),
    bound('Role r', AGENT, 'fulmar'),
  ],
  [
    'not one of the same name elsewhere',
    'get core pods fulmar',
    false,
    role('r', 'shop', rule('get', 'core', 'pods')),
    bound('Role r', AGENT, 'fulmar'),
  ],
  [
    'one object by its name',
    'get core nodes  a',
    true,
    role('r', '', rule('get', 'core', 'nodes', 'a b')),
    bound('ClusterRole r'),
  ],
  [
    'and no other',
    'get core nodes  c',
    false,
    role('r', '', rule('get', 'core', 'nodes', 'a b')),
    bound('ClusterRole r'),
  ],
  [
    'a subresource of all',
    'get core nodes/status',
    true,
    role('r', '', rule('get', 'core', '*/status')),
    bound('ClusterRole r'),
  ],
  [
    'nonsense allows nothing',
    'get core nodes',
    false,
    { ...reads, rules: [{ verbs: 'get' }, {}] },
    { kind: 'ClusterRoleBinding', subjects: 'x' },
    bound('ClusterRole reads'),
  ],
]
for (const [name, text, allowed, ...objects] of rows) {
  const [verb = '', group = '', resource = '', namespace = '', object = ''] = text.split(' ')
  const deed: Deed = { verb, group: group === 'core' ? '' : group, resource, namespace, name: object }
  const list = ({ kind }: { readonly kind: string }) =>
    (objects as readonly KubernetesObject[]).filter((each) => each.kind === kind)
  t.equal(mayByRoles(agent, deed, list), allowed, `${name}: ${text}`)
}
