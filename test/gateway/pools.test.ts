import t from 'tap'
import { PoolView, type PoolObjects } from '../../gateway/pools.ts'
import type { Node } from '../../lib/k8s/objects.ts'

const node = (name: string, cidr: string, more: object = {}): Node =>
  ({
    metadata: { name, labels: { 'apps.openyurt.io/nodepool': name.slice(0, -1) }, resourceVersion: '1' },
    spec: { podCIDRs: [cidr] },
    status: { addresses: [{ type: 'InternalIP', address: '192.168.1.2' }], conditions: [] },
    ...more,
  }) as unknown as Node
const nodes = [node('bay1', '10.1.0.0/24'), node('cape1', '10.2.0.0/24')]
const objects: PoolObjects = { nodes, nodePools: [], gateways: [] }
const outside = [{ address: '198.51.100.1', what: 'the relay' }]

t.test('what says the same as before is the same value as before', async (t) => {
  const view = new PoolView()
  const first = view.look(objects, () => outside)
  t.equal(
    view.look(objects, () => outside),
    first,
    'no change at all',
  )
  const heartbeat = node('cape1', '10.2.0.0/24', {
    metadata: { ...nodes[1]!.metadata, resourceVersion: '2' },
    status: { ...nodes[1]!.status, conditions: [{ type: 'Ready', status: 'True', lastHeartbeatTime: 'now' }] },
  })
  t.equal(
    view.look({ ...objects, nodes: [nodes[0]!, heartbeat] }, () => outside),
    first,
    'a node reports itself',
  )
  const changed = view.look({ ...objects, nodes: [nodes[0]!, node('cape1', '10.9.0.0/24')] }, () => outside)
  t.strictSame(
    changed.pools.map(({ nodes }) => nodes[0]!.podCidrs),
    [['10.1.0.0/24'], ['10.9.0.0/24']],
  )
  t.equal(changed.pools[0], first.pools[0], 'the pool beside it')
  t.same(view.isInside('10.9.0.7') && !view.isInside('10.2.0.7'), true, 'what lies inside follows')
  const added = view.look({ ...objects, nodes: [...nodes, node('dune1', '10.3.0.0/24')] }, () => outside)
  t.equal(added.pools.length, 3)
  t.equal(added.pools[0], first.pools[0])
  t.equal(view.look(objects, () => outside).pools.length, 2)
})

t.test('addresses outside are asked each time', async (t) => {
  const view = new PoolView()
  const first = view.look(objects, () => outside)
  const moved = view.look(objects, () => [{ address: '10.2.0.9', what: 'the relay' }])
  t.strictSame(moved.pools[1]!.nodes[0]!.podCidrs, [])
  t.match(moved.problems, [/10\.2\.0\.9, the relay/])
  t.equal(moved.pools[0], first.pools[0])
  t.strictSame(
    view.look(objects, () => outside),
    first,
  )
})
