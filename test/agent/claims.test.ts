// Services that claim one address: who gets it, and who is told.

import t from 'tap'
import { balanceOf, createBalancer, type Frontend } from '../../agent/balance.ts'
import { hereOf } from '../../agent/topology.ts'
import type { Service } from '../../lib/k8s/objects.ts'
import { balance, nodes } from './chooser.ts'
import { clusterWith, service } from './shop.ts'

t.test('two services on one address', async (t) => {
  const port = [{ name: 'http', port: 80, protocol: 'TCP', nodePort: 30080 }]
  const rows: readonly {
    readonly name: string
    readonly a: Service['spec']
    readonly b: Service['spec']
    readonly frontends: readonly string[]
    readonly problems: readonly RegExp[]
  }[] = [
    {
      name: 'one ClusterIP: the first gets it, with all ports',
      a: {},
      b: { ports: [{ name: 'http', port: 81 }] },
      frontends: ['shop/a cluster-ip 10.96.0.1 80'],
      problems: [/ClusterIP 10.96.0.1 is claimed by services shop\/a and shop\/b: the first gets it/],
    },
    {
      name: 'one NodePort',
      a: { ports: port },
      b: { clusterIP: '10.96.0.2', ports: port },
      frontends: [
        'shop/a cluster-ip 10.96.0.1 80',
        'shop/a node-port undefined 30080',
        'shop/b cluster-ip 10.96.0.2 80',
      ],
      problems: [/TCP NodePort 30080 is claimed by services shop\/a and shop\/b/],
    },
    {
      name: 'one external address and port',
      a: { externalIPs: ['192.0.2.1'] },
      b: { clusterIP: '10.96.0.2', externalIPs: ['192.0.2.1'] },
      frontends: [
        'shop/a cluster-ip 10.96.0.1 80',
        'shop/a external-ip 192.0.2.1 80',
        'shop/b cluster-ip 10.96.0.2 80',
      ],
      problems: [/TCP port 80 of 192.0.2.1 is claimed by services shop\/a and shop\/b/],
    },
    {
      name: 'one external address, two ports',
      a: { externalIPs: ['192.0.2.1'] },
      b: { clusterIP: '10.96.0.2', externalIPs: ['192.0.2.1'], ports: [{ name: 'http', port: 81 }] },
      frontends: [
        'shop/a cluster-ip 10.96.0.1 80',
        'shop/a external-ip 192.0.2.1 80',
        'shop/b cluster-ip 10.96.0.2 81',
        'shop/b external-ip 192.0.2.1 81',
      ],
      problems: [],
    },
    {
      name: 'an external address that is a ClusterIP',
      a: { externalIPs: ['10.96.0.2'], ports: [{ name: 'http', port: 443 }] },
      b: { clusterIP: '10.96.0.2' },
      frontends: ['shop/a cluster-ip 10.96.0.1 443', 'shop/b cluster-ip 10.96.0.2 80'],
      problems: [/service shop\/a: external address 10.96.0.2 is a ClusterIP of service shop\/b/],
    },
    {
      name: 'one NodePort, two protocols',
      a: { ports: port },
      b: { clusterIP: '10.96.0.2', ports: [{ ...port[0]!, protocol: 'UDP' }] },
      frontends: [
        'shop/a cluster-ip 10.96.0.1 80',
        'shop/a node-port undefined 30080',
        'shop/b cluster-ip 10.96.0.2 80',
        'shop/b node-port undefined 30080',
      ],
      problems: [],
    },
  ]
  for (const { name, a, b, frontends, problems } of rows) {
    const [first, second] = [service(a, { name: 'a' }), service(b, { name: 'b' })]
    const text = (list: readonly Frontend[]) =>
      list.map((frontend) => `${frontend.service} ${frontend.kind} ${frontend.address} ${frontend.port}`)
    const whole = balance({ services: [second, first] })
    t.strictSame(text(whole.frontends), frontends, name)
    t.equal(whole.problems.length, problems.length, name)
    t.match(whole.problems, problems, name)

    // In any order of coming and going the outcome is that of all at once.
    const balancer = createBalancer()
    for (const services of [[second], [second, first], [first], [first, second], [second], [first, second]]) {
      const cluster = clusterWith({ nodes, services })
      const here = hereOf(cluster, 'h1')
      const { services: stepwise, problems } = balancer({ cluster, here })
      const { services: anew, problems: problemsAnew } = balanceOf({ cluster, here })
      t.strictSame({ stepwise, problems }, { stepwise: anew, problems: problemsAnew }, `${name}, step by step`)
    }
  }
})
