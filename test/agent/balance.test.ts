// The chooser over all services: which it serves, and that it remembers them.

import t from 'tap'
import { createBalancer } from '../../agent/balance.ts'
import { createClusterReader } from '../../agent/cluster.ts'
import { hereOf } from '../../agent/topology.ts'
import type { Service } from '../../lib/k8s/objects.ts'
import { balance, nodes, summary } from './chooser.ts'
import { clusterWith, endpoint, service, slice } from './shop.ts'

t.test('a change of type is a new service', async (t) => {
  const balancer = createBalancer()
  const types: readonly (readonly [Service['spec'], Record<string, string>])[] = [
    [{ type: 'ExternalName', externalName: 'example.com' }, {}],
    [{ type: 'ClusterIP' }, { 'cluster-ip 10.96.0.1 TCP/80': '1' }],
    [{ type: 'ExternalName', externalName: 'example.com' }, {}],
    [
      { type: 'NodePort', ports: [{ name: 'http', port: 80, nodePort: 30080 }] },
      { 'cluster-ip 10.96.0.1 TCP/80': '1', 'node-port * TCP/30080': '1' },
    ],
    [{ clusterIP: 'None' }, {}],
  ]
  for (const [spec, expected] of types) {
    const cluster = clusterWith({ services: [service(spec)], slices: [slice({ endpoints: [endpoint(1, 'h1')] })] })
    const services = [...balancer({ cluster, here: hereOf(cluster, 'h1') }).services]
    t.strictSame(summary(services.flatMap(({ frontends }) => frontends)), expected, JSON.stringify(spec))
  }
})

t.test('which services are served', async (t) => {
  const labels: readonly (readonly [labels: Record<string, string>, all: boolean, labelled: boolean])[] = [
    [{}, true, false],
    [{ 'service.kubernetes.io/service-proxy-name': 'other' }, false, false],
    [{ 'service.kubernetes.io/service-proxy-name': 'fulmar' }, true, true],
    [{ 'service.kubernetes.io/headless': '' }, false, false],
    [{ 'service.edgemesh.kubeedge.io/service-proxy-name': '' }, false, true],
    [{ 'service.edgemesh.kubeedge.io/service-proxy-name': '', 'service.kubernetes.io/headless': '' }, false, false],
  ]
  for (const [each, all, labelled] of labels)
    for (const [selection, expected] of [
      ['all', all],
      ['labelled', labelled],
    ] as const) {
      const services = [service({}, { metadata: { namespace: 'shop', name: 'web', labels: each } })]
      t.equal(
        balance({ services }, { selection }).frontends.length > 0,
        expected,
        `${selection} ${JSON.stringify(each)}`,
      )
    }
})

t.test('what did not change is the very same', async (t) => {
  const services = [service(), service({ clusterIP: '10.96.0.2' }, { name: 'other' })]
  const slices = [
    slice({ endpoints: [endpoint(1, 'h1')] }),
    slice({ of: 'other', name: 'other', endpoints: [endpoint(2, 's1')] }),
  ]
  const read = createClusterReader()
  const objects = { nodes, services, slices, nodePools: [], gateways: [] }
  const cluster = read(objects)
  const here = hereOf(cluster, 'h1')
  const balancer = createBalancer()
  const before = [...balancer({ cluster, here }).services]
  const moved = read({ ...objects, slices: [slice({ endpoints: [endpoint(3, 'h1')] }), slices[1]!] })
  const after = [...balancer({ cluster: moved, here }).services]
  const [other, web] = [
    after.findIndex(({ service }) => service === 'shop/other'),
    after.findIndex(({ service }) => service === 'shop/web'),
  ]
  t.equal(after[other], before[other])
  t.not(after[web], before[web])

  const quiet = [...balancer({ cluster: moved, here, health: () => undefined }).services]
  t.equal(quiet[web], after[web], 'nothing to say of its endpoints')
  const health = (address: string) => (address === '10.244.0.3' ? 'dead' : undefined)
  const dead = [...balancer({ cluster: moved, here, health }).services]
  t.equal(dead[other], before[other], 'something to say of others')
  t.not(dead[web], after[web])
})
