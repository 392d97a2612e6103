// Services over real nft, sockets and namespaces: a node with three pods, and another pool's pod behind a router.

import { execFileSync } from 'node:child_process'
import { connect } from 'node:net'
import { setTimeout as sleep } from 'node:timers/promises'
import t from 'tap'
import { balanceOf } from '../../agent/balance.ts'
import { clusterOf, type Cluster } from '../../agent/cluster.ts'
import { runNft } from '../../agent/nft-loop.ts'
import { hereOf } from '../../agent/topology.ts'
import type { EndpointSlice, Node, Service } from '../../lib/k8s/objects.ts'
import { createLog } from '../../lib/log.ts'
import { addPod, enterNamespace, ip } from './namespace.ts'
import { call, callFrom, startServer } from './peer.ts'

const test = enterNamespace('fma-', import.meta.url)
if (test !== undefined) {
  const nft = (...args: string[]): string => execFileSync('nft', args, { encoding: 'utf8' })
  execFileSync('sysctl', ['-qw', 'net.ipv4.ip_forward=1', 'net.ipv6.conf.all.forwarding=1'])
  const [a, b, c] = ['a', 'b', 'c'].map((name, i) =>
    addPod(test, name, [
      [`10.244.1.${i + 2}`, '10.244.1.1'],
      [`fd00:244:1::${i + 2}`, 'fd00:244:1::1'],
    ]),
  ) as [string, string, string]
  // What is beyond the LAN: the node calls from 192.168.1.1 unless told otherwise; the other pool accepts pods only.
  const far = addPod(test, 'far', [
    ['192.168.1.254', '192.168.1.1'],
    ['fd00:192::254', 'fd00:192::1'],
  ])
  for (const [address, via] of [
    ['10.244.2.2/32', '192.168.1.254'],
    ['fd00:244:2::2/128', 'fd00:192::254'],
  ] as const) {
    ip('-n', far, 'addr', 'add', address, 'dev', 'lo', ...(address.includes(':') ? ['nodad'] : []))
    ip('route', 'add', address, 'via', via)
    ip('route', 'add', 'default', 'via', via)
  }
  const children = await Promise.all(
    [a, b, c, far].map((namespace, i) => startServer(namespace, ['a', 'b', 'c', 'far'][i]!, 8080)),
  )
  t.teardown(() => children.forEach((child) => child.kill()))

  const clusterIps = (last: number) => [`10.96.0.${last}`, `fd00:96::${last}`]
  const service = (name: string, last: number): Service => ({
    metadata: { namespace: 'shop', name },
    spec: {
      clusterIP: clusterIps(last)[0]!,
      clusterIPs: clusterIps(last),
      ports: [
        { name: 'tcp', protocol: 'TCP', port: 80 },
        { name: 'udp', protocol: 'UDP', port: 80 },
      ],
    },
  })
  const slices = (name: string, pods: readonly [node: string, v4: string, v6: string][]): EndpointSlice[] =>
    (['IPv4', 'IPv6'] as const).map((addressType, i) => ({
      metadata: { namespace: 'shop', name: `${name}-${i}`, labels: { 'kubernetes.io/service-name': name } },
      addressType,
      endpoints: pods.map(([nodeName, ...addresses]) => ({ nodeName, addresses: [addresses[i]!] })),
      ports: [
        { name: 'tcp', protocol: 'TCP', port: 8080 },
        { name: 'udp', protocol: 'UDP', port: 8080 },
      ],
    }))
  const podA = ['h1', '10.244.1.2', 'fd00:244:1::2'] as const
  const podB = ['h1', '10.244.1.3', 'fd00:244:1::3'] as const
  const podFar = ['s1', '10.244.2.2', 'fd00:244:2::2'] as const
  const nodes: Node[] = [
    { metadata: { name: 'h1' }, spec: { podCIDRs: ['10.244.1.0/24', 'fd00:244:1::/64'] } },
    { metadata: { name: 's1' }, spec: { podCIDRs: ['10.244.2.0/24', 'fd00:244:2::/64'] } },
  ]
  const cluster = (pair: readonly (readonly [string, string, string])[]): Cluster =>
    clusterOf({
      services: [service('pair', 1), service('none', 2), service('far', 3), service('self', 4)],
      slices: [
        ...slices(
          'pair',
          pair.map(([...pod]) => pod),
        ),
        ...slices('far', [[...podFar]]),
        ...slices('self', [[...podA]]),
      ],
      nodes,
      nodePools: [],
      gateways: [],
    })

  let current = cluster([podA, podB])
  const log = createLog('test', process.env['LOG'] ?? 'silent')
  const options = {
    snapshot: () => {
      const here = hereOf(current, 'h1')
      return { cluster: current, here, balance: balanceOf({ cluster: current, here }) }
    },
    takeovers: () => [],
    log,
  }
  const controller = new AbortController()
  const loop = runNft(options, controller.signal)
  await loop.idle()
  const change = async (next: Cluster): Promise<void> => {
    current = next
    loop.trigger()
    await loop.idle()
  }

  for (const [i, family] of ['IPv4', 'IPv6'].entries())
    for (const protocol of ['tcp', 'udp'] as const) {
      t.test(`${protocol} over ${family}`, async (t) => {
        const answers = await callFrom(c, protocol, clusterIps(1)[i]!, 80, 30)
        const client = i === 0 ? '10.244.1.4' : 'fd00:244:1::4'
        t.strictSame(
          [...new Set(answers)].sort(),
          [`a ${client}`, `b ${client}`],
          'both endpoints, and each sees the pod itself',
        )

        const startedAt = performance.now()
        const [refused] = await callFrom(c, protocol, clusterIps(2)[i]!, 80)
        t.equal(refused, 'ECONNREFUSED', 'without endpoints')
        const [unused] = await callFrom(c, protocol, clusterIps(1)[i]!, 81)
        t.equal(unused, 'ECONNREFUSED', 'a port that no service has')
        t.ok(performance.now() - startedAt < 1_500, 'at once')

        const [hairpin] = await callFrom(a, protocol, clusterIps(4)[i]!, 80)
        t.match(hairpin, /^a /, 'a pod reaches itself')
        t.match(await call(protocol, clusterIps(1)[i]!, 80), /^[ab] /, 'the node reaches pods')
        t.equal(
          await call(protocol, clusterIps(3)[i]!, 80),
          `far ${i === 0 ? '10.244.1.1' : 'fd00:244:1::1'}`,
          'the node reaches another pool from an address that pools accept',
        )
        t.match(await call(protocol, clusterIps(2)[i]!, 80), /^(ECONNREFUSED|EPERM)$/, 'the node is refused as well')
      })
    }

  t.test('a change moves new calls and leaves connections alone', async (t) => {
    await change(cluster([podA]))
    const socket = connect(80, '10.96.0.1')
    const received: string[] = []
    socket.setEncoding('utf8').on('data', (text: string) => received.push(text))
    while (received.length === 0) await sleep(5)
    await change(cluster([podB]))
    t.strictSame([...new Set(await callFrom(c, 'tcp', '10.96.0.1', 80, 10))], ['b 10.244.1.4'])
    socket.write('still there')
    while (received.length < 2) await sleep(5)
    t.match(received.join(''), /^a .*\nstill there$/)
    socket.destroy()
  })

  t.test('a flow that keeps its UDP socket follows the endpoint', async (t) => {
    const { createSocket } = await import('node:dgram')
    const socket = createSocket('udp4')
    const heard: string[] = []
    socket.on('message', (data) => heard.push(data.toString().split(' ')[0]!))
    socket.on('error', () => undefined)
    await new Promise<void>((resolve) => socket.connect(80, '10.96.0.1', resolve))
    await change(cluster([podA]))
    const until = async (name: string): Promise<boolean> => {
      for (let i = 0; i < 40 && heard.at(-1) !== name; i++) {
        socket.send('?')
        await sleep(50)
      }
      return heard.at(-1) === name
    }
    t.ok(await until('a'))
    await change(cluster([podB]))
    t.ok(await until('b'))
    socket.close()
  })

  t.test('what somebody else removes is back within a second', async (t) => {
    const removals = {
      'flush ruleset': ['flush', 'ruleset'],
      'delete table': ['delete', 'table', 'ip', 'fulmar'],
      'flush table': ['flush', 'table', 'ip', 'fulmar'],
      'flush chain': ['flush', 'chain', 'ip', 'fulmar', 'nat-prerouting'],
      'flush map': ['flush', 'map', 'ip', 'fulmar', 'services'],
    }
    await change(cluster([podA, podB]))
    for (const [name, command] of Object.entries(removals)) {
      await sleep(400)
      nft(...command)
      await sleep(900)
      const [answer] = await callFrom(c, 'tcp', '10.96.0.1', 80)
      t.match(answer, /^[ab] /, name)
    }
    const table = nft('list', 'table', 'ip', 'fulmar')
    await change(cluster([podA]))
    await change(cluster([podA, podB]))
    await sleep(600)
    t.equal(
      nft('list', 'table', 'ip', 'fulmar').match(/layout-\S+/)![0],
      table.match(/layout-\S+/)![0],
      'our own changes are no loss',
    )
  })

  t.test('an end leaves the rules, a new start replaces them while calls go on', async (t) => {
    controller.abort()
    await loop.done
    t.match((await callFrom(c, 'tcp', '10.96.0.1', 80))[0], /^[ab] /)
    const markers = () =>
      nft('list', 'ruleset')
        .match(/layout-\S+/g)
        ?.join()
    const before = markers()
    const calls = callFrom(c, 'tcp', '10.96.0.1', 80, 400)
    for (let i = 0; i < 3; i++) {
      const controller = new AbortController()
      const loop = runNft(options, controller.signal)
      await loop.idle()
      controller.abort()
      await loop.done
    }
    t.strictSame([...new Set(await calls)].sort(), ['a 10.244.1.4', 'b 10.244.1.4'])
    t.equal(markers(), before, 'with the very same tables')
  })
}
