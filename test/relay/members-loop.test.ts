// The nodes of a Kubernetes API, followed as far as the relay needs them.

import t from 'tap'
import { covering } from '../../lib/cidr.ts'
import { createEgressTable, routedNode } from '../../relay/egress-route.ts'
import { followNodeNames } from '../../relay/members-loop.ts'
import { log } from './mesh.ts'
import { until } from './ops.ts'
import { serve, temporaryFolder, write } from './api/serving.ts'

const node = (name: string, address: string, extra: object = {}): string =>
  JSON.stringify({
    apiVersion: 'v1',
    kind: 'Node',
    metadata: { name, labels: { big: 'x'.repeat(63) } },
    spec: { podCIDRs: ['10.244.7.0/24'] },
    status: { addresses: [{ type: 'InternalIP', address }], ...extra },
  })

t.test('addresses of nodes lead to them', async (t) => {
  const directory = temporaryFolder(t)
  write(directory, { 'a.json': node('edge-7', '192.168.1.7') })
  const api = await serve(t, directory, temporaryFolder(t))
  const life = new AbortController()
  const { nodes, done } = followNodeNames(api.client(), log, life.signal)
  t.teardown(() => {
    life.abort()
    return done
  })
  t.equal(nodes(), undefined, 'nothing is known yet')
  await until(() => nodes() !== undefined)
  const route = (host: string) =>
    createEgressTable((nodes() ?? []).map(routedNode), { hasSession: () => true, isCloud: covering([]) })(host)
  t.same(route('192.168.1.7'), { kind: 'node', node: 'edge-7' })
  t.match(route('10.244.7.3'), { kind: 'direct', podOf: 'edge-7' })
  const [kept] = nodes()!
  t.notMatch(JSON.stringify(kept), /xxx/, 'and no more is kept')

  const before = nodes()
  write(directory, {
    'a.json': node('edge-7', '192.168.1.7', { phase: 'other' }),
    'b.json': node('edge-8', '192.168.1.8'),
  })
  await until(() => nodes() !== before)
  t.same(route('192.168.1.8'), { kind: 'node', node: 'edge-8' })
  write(directory, { 'a.json': node('edge-7', '192.168.1.77') })
  await until(() => route('192.168.1.77').kind === 'node')
  t.match(route('192.168.1.7'), { kind: 'direct' })
})
