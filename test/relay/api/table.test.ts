import t from 'tap'
import type { KubernetesObject } from '../../../lib/k8s/objects.ts'
import { builtIn } from '../../../relay/api/kinds.ts'
import { chooseRepresentation } from '../../../relay/api/representation.ts'
import { ageText, tableOf } from '../../../relay/api/table.ts'

const S = 1_000
const M = 60 * S
const H = 60 * M
const D = 24 * H
// As k8s.io/apimachinery/pkg/util/duration's own test has them.
const ages: readonly (readonly [number, string])[] = [
  [-5, '0s'],
  [1 * S, '1s'],
  [70 * S, '70s'],
  [190 * S, '3m10s'],
  [70 * M, '70m'],
  [47 * H, '47h'],
  [49 * H, '2d1h'],
  [(8 * 24 + 2) * H, '8d'],
  [367 * D, '367d'],
  [(365 * 2 + 25) * D, '2y25d'],
  [(365 * 8 + 2) * D, '8y'],
]
for (const [ms, expected] of ages) t.equal(ageText(ms), expected)

const cells = (kind: string, object: object, wide = false) => {
  const table = tableOf([object as KubernetesObject], {
    kind: builtIn(kind),
    include: 'None',
    nowMs: 0,
    listMetadata: {},
  }) as {
    columnDefinitions: { name: string; priority: number }[]
    rows: { cells: unknown[] }[]
  }
  return table.rows[0]!.cells.filter((_, index) => wide || table.columnDefinitions[index]!.priority === 0).join(' ')
}
const metadata = { name: 'x', creationTimestamp: '1969-12-31T23:59:00Z' }
const rows: readonly (readonly [string, string, object, string])[] = [
  ['a bare node', 'Node', { metadata }, 'x Unknown <none> <none> 60s'],
  [
    'a ready node of a pool',
    'Node',
    {
      metadata: { ...metadata, labels: { 'apps.openyurt.io/nodepool': 'p', 'node-role.kubernetes.io/edge': '' } },
      status: { conditions: [{ type: 'Ready', status: 'True' }] },
    },
    'x Ready edge p 60s',
  ],
  [
    'a pod that runs',
    'Pod',
    { metadata, spec: { containers: [{}, {}] }, status: { phase: 'Running' } },
    'x 2/2 Running 0 60s',
  ],
  [
    'a service',
    'Service',
    { metadata, spec: { clusterIP: '10.96.0.1', ports: [{ port: 53, protocol: 'UDP' }, { port: 80 }] } },
    'x ClusterIP 10.96.0.1 <none> 53/UDP,80/TCP 60s',
  ],
  [
    'a slice',
    'EndpointSlice',
    {
      metadata,
      addressType: 'IPv4',
      ports: [{ port: 1 }],
      endpoints: ['a', 'b', 'c', 'd'].map((each) => ({ addresses: [each] })),
    },
    'x IPv4 1 a,b,c + 1 more... 60s',
  ],
  ['an empty slice', 'EndpointSlice', { metadata, addressType: 'IPv4' }, 'x IPv4 <unset> <unset> 60s'],
  ['a kind of which nothing is known', 'Role', { metadata: { name: 'x' } }, 'x <unknown>'],
]
for (const [name, kind, object, expected] of rows) t.equal(cells(kind, object), expected, name)

const KUBECTL =
  'application/json;as=Table;v=v1;g=meta.k8s.io,application/json;as=Table;v=v1beta1;g=meta.k8s.io,application/json'
const accepts: readonly (readonly [string | undefined, string | undefined])[] = [
  [KUBECTL, 'table'],
  [undefined, 'object'],
  ['*/*', 'object'],
  ['application/vnd.kubernetes.protobuf, application/json', 'object'],
  ['application/json;as=PartialObjectMetadataList;g=meta.k8s.io;v=v1,application/json', 'object'],
  ['application/vnd.kubernetes.protobuf', undefined],
]
for (const [accept, form] of accepts) t.equal(chooseRepresentation(accept, null)?.form, form, accept ?? 'none')
