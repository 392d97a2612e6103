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
const role = (kind: string, name: string, namespace: string, ...rules: readonly object[]) => ({
  kind,
  metadata: { name, ...(namespace !== '' && { namespace }) },
  rules,
})
const binding = (kind: string, namespace: string, roleRef: string, subject: object) => ({
  kind,
  metadata: { name: 'b', ...(namespace !== '' && { namespace }) },
  roleRef: { kind: roleRef.split(' ')[0], name: roleRef.split(' ')[1] },
  subjects: [subject],
})
const AGENT = { kind: 'ServiceAccount', name: 'agent', namespace: 'fulmar' }
const reads = role('ClusterRole', 'reads', '', rule('list watch', 'core', 'nodes pods'))
const all = role('ClusterRole', 'all', '', rule('*', '*', '*'))

const rows: readonly (readonly [name: string, deed: string, allowed: boolean, ...objects: readonly object[]])[] = [
  ['nobody without a role', 'list core nodes', false],
  ['a role without a binding', 'list core nodes', false, reads],
  ['what its role says', 'list core nodes', true, reads, binding('ClusterRoleBinding', '', 'ClusterRole reads', AGENT)],
  [
    'in any namespace',
    'watch core pods shop',
    true,
    reads,
    binding('ClusterRoleBinding', '', 'ClusterRole reads', AGENT),
  ],
  ['no other verb', 'get core nodes', false, reads, binding('ClusterRoleBinding', '', 'ClusterRole reads', AGENT)],
  ['no other group', 'list apps pods', false, reads, binding('ClusterRoleBinding', '', 'ClusterRole reads', AGENT)],
  ['no subresource', 'list core pods/log', false, reads, binding('ClusterRoleBinding', '', 'ClusterRole reads', AGENT)],
  ['all', 'delete apps daemonsets/status x y', true, all, binding('ClusterRoleBinding', '', 'ClusterRole all', AGENT)],
  [
    'another account',
    'list core nodes',
    false,
    reads,
    binding('ClusterRoleBinding', '', 'ClusterRole reads', { ...AGENT, name: 'x' }),
  ],
  [
    'another namespace',
    'list core nodes',
    false,
    reads,
    binding('ClusterRoleBinding', '', 'ClusterRole reads', { ...AGENT, namespace: 'x' }),
  ],
  [
    'by its group',
    'list core nodes',
    true,
    reads,
    binding('ClusterRoleBinding', '', 'ClusterRole reads', { kind: 'Group', name: 'system:serviceaccounts:fulmar' }),
  ],
  [
    'by its user name',
    'list core nodes',
    true,
    reads,
    binding('ClusterRoleBinding', '', 'ClusterRole reads', {
      kind: 'User',
      name: 'system:serviceaccount:fulmar:agent',
    }),
  ],
  [
    'a binding in a namespace counts there',
    'list core pods fulmar',
    true,
    reads,
    binding('RoleBinding', 'fulmar', 'ClusterRole reads', { kind: 'ServiceAccount', name: 'agent' }),
  ],
  [
    'and not elsewhere',
    'list core pods shop',
    false,
    reads,
    binding('RoleBinding', 'fulmar', 'ClusterRole reads', AGENT),
  ],
  [
    'nor for the cluster',
    'list core nodes',
    false,
    reads,
    binding('RoleBinding', 'fulmar', 'ClusterRole reads', AGENT),
  ],
  [
    'a Role of its namespace',
    'get core pods fulmar',
    true,
    role('Role', 'r', 'fulmar', rule('get', 'core', 'pods')),
    binding('RoleBinding', 'fulmar', 'Role r', AGENT),
  ],
  [
    'not one of the same name elsewhere',
    'get core pods fulmar',
    false,
    role('Role', 'r', 'shop', rule('get', 'core', 'pods')),
    binding('RoleBinding', 'fulmar', 'Role r', AGENT),
  ],
  [
    'one object by its name',
    'get core nodes  a',
    true,
    role('ClusterRole', 'r', '', rule('get', 'core', 'nodes', 'a b')),
    binding('ClusterRoleBinding', '', 'ClusterRole r', AGENT),
  ],
  [
    'and no other',
    'get core nodes  c',
    false,
    role('ClusterRole', 'r', '', rule('get', 'core', 'nodes', 'a b')),
    binding('ClusterRoleBinding', '', 'ClusterRole r', AGENT),
  ],
  [
    'a subresource of all',
    'get core nodes/status',
    true,
    role('ClusterRole', 'r', '', rule('get', 'core', '*/status')),
    binding('ClusterRoleBinding', '', 'ClusterRole r', AGENT),
  ],
  [
    'nonsense allows nothing',
    'get core nodes',
    false,
    { ...reads, rules: [{ verbs: 'get' }, {}] },
    { kind: 'ClusterRoleBinding', subjects: 'x' },
    binding('ClusterRoleBinding', '', 'ClusterRole reads', AGENT),
  ],
]
for (const [name, text, allowed, ...objects] of rows) {
  const [verb = '', group = '', resource = '', namespace = '', object = ''] = text.split(' ')
  const deed: Deed = { verb, group: group === 'core' ? '' : group, resource, namespace, name: object }
  const list = ({ kind }: { readonly kind: string }) =>
    (objects as readonly KubernetesObject[]).filter((each) => each.kind === kind)
  t.equal(mayByRoles(agent, deed, list), allowed, `${name}: ${text}`)
}
