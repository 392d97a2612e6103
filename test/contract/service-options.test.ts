// Rows of the contract that need flags, time, or a protocol of their own, by BPF over nft: prefixes of NodePort addresses,
// unallocated ClusterIPs, how long affinity holds, SCTP, and which label means us.

import { setTimeout as sleep } from 'node:timers/promises'
import t, { type Test } from 'tap'
import { createBalancer } from '../../agent/balance.ts'
import { clusterOf } from '../../agent/cluster.ts'
import type { ServiceSnapshot } from '../../agent/nft-loop.ts'
import type { ServiceSelection } from '../../agent/services.ts'
import { hereOf } from '../../agent/topology.ts'
import { FAMILIES, type Family } from '../../lib/cidr.ts'
import { enterCage } from '../agent/cage.ts'
import { ip } from '../agent/namespace.ts'
import { isRoot, until } from '../lib/netns.ts'
import { KUBE_PROXIES, type Forward } from './kube-proxy.ts'
import { answerSctp, callSctp } from './sctp.ts'
import type { Case, CaseCall } from './service-cases.ts'
import { nodeGroupOf, serve } from './service-node.ts'
import { destination, objectsOf } from './service-objects.ts'
import { ADDRESSES, buildWorld, NODES, PORT, SECOND_PORT, type Place } from './service-world.ts'

t.setTimeout(120_000)

const NODE_PORTS = ['192.168.0.0/16', 'fd00:192::/32']
const SERVICE_CIDRS = ['10.96.0.0/16', 'fd00:96::/64', '10.96.0.0/24']
const AFFINITY_SECONDS = 2
/** Many, so that chance soon picks another. */
const all: Case['endpoints'] = [['a'], ['b'], ['far'], ['a', 'ready', SECOND_PORT], ['b', 'ready', SECOND_PORT]]
const sctp: Case['ports'] = [{ name: 'sctp', protocol: 'SCTP', port: 82, nodePort: 30_224 }]
const CASES: Readonly<Record<number, Case>> = {
  220: { name: 'NodePort', spec: { type: 'NodePort' }, endpoints: [['a']], calls: [] },
  221: {
    name: 'of another proxy',
    labels: { 'service.kubernetes.io/service-proxy-name': 'other' },
    endpoints: [['a']],
    calls: [],
  },
  222: {
    name: 'affinity',
    spec: { sessionAffinity: 'ClientIP', sessionAffinityConfig: { clientIP: { timeoutSeconds: AFFINITY_SECONDS } } },
    endpoints: all,
    calls: [],
  },
  223: {
    name: 'SCTP',
    spec: { type: 'NodePort' },
    ports: sctp.map((port) => ({ ...port, nodePort: 30_223 })),
    endpoints: [['a']],
    calls: [],
  },
  224: { name: 'SCTP, none', spec: { type: 'NodePort' }, ports: sctp, endpoints: [], calls: [] },
  225: {
    name: 'EdgeMesh',
    labels: { 'service.edgemesh.kubeedge.io/service-proxy-name': '' },
    endpoints: [['a']],
    calls: [],
  },
}
const UNALLOCATED = 226
/** For what has no promised time. */
const PATIENCE_MS = 30_000

function snapshotOf(selection: ServiceSelection): ServiceSnapshot {
  const objects = Object.entries(CASES).map(([index, each]) => objectsOf(each, Number(index)))
  const services = objects.map(({ service }) => service)
  const slices = objects.flatMap(({ slices }) => slices)
  const cluster = clusterOf({ services, slices, nodes: NODES, nodePools: [], gateways: [] })
  const here = hereOf(cluster, 'h1')
  return { cluster, here, balance: createBalancer()({ cluster, here, selection }) }
}

const cage = isRoot ? enterCage('fmo-', import.meta.url) : undefined
if (!isRoot) t.test('needs root', { skip: true }, () => {})
if (cage !== undefined) {
  const world = await buildWorld(`fmo-${process.pid}`)
  let snapshot = snapshotOf('all')
  const ours = serve(nodeGroupOf(cage, world), {
    snapshot: () => snapshot,
    nodePortAddresses: NODE_PORTS,
    serviceCidrs: () => SERVICE_CIDRS,
  })
  await ours.apply()

  const ask = async (from: Place, protocol: 'tcp' | 'udp', address: string, port: number): Promise<string> => {
    const [answer = ''] = await world.call(from, { protocol, address, port, count: 1 })
    return answer.split(' ')[0]!
  }
  const clusterIp = (index: number, family: Family) =>
    destination(index, { from: 'c', to: 'cluster', expect: 'refused' } satisfies CaseCall, family).address
  /** In both families, by both protocols, from everywhere. */
  const askAll = async (t: Test, index: number, expected: Readonly<Record<'tcp' | 'udp', RegExp>>, what: string) =>
    void (await Promise.all(
      FAMILIES.flatMap((family) =>
        (['tcp', 'udp'] as const).flatMap((protocol) =>
          (['c', 'node', 'outside'] as const).map(async (from) => {
            const answer = await ask(from, protocol, clusterIp(index, family), 80)
            t.match(answer, expected[protocol], `${what}: ${protocol} from ${from} over IPv${family}`)
          }),
        ),
      ),
    ))

  await t.test('NodePorts are on the addresses of these prefixes, and follow them', async (t) => {
    const rows: readonly (readonly [address: string, served: boolean])[] = [
      ['192.168.1.1', true],
      ['192.168.9.1', true],
      ['fd00:192::1', true],
      ['10.244.1.1', false],
      ['fd00:9::1', false],
    ]
    for (const [address, served] of rows)
      for (const protocol of ['tcp', 'udp'] as const)
        for (const from of ['outside', 'c', 'node'] as const)
          t.equal(
            (await ask(from, protocol, address, 30_220)) === 'a',
            served,
            `${protocol} from ${from} to ${address}`,
          )
    for (const address of ['192.168.77.1', 'fd00:192::77']) {
      const whole = `${address}/${address.includes(':') ? 128 : 32}`
      ip('addr', 'add', whole, 'dev', 'v-outside', ...(address.includes(':') ? ['nodad'] : []))
      const answers = (name: string) => async () => {
        const [udp, tcp] = [await ask('outside', 'udp', address, 30_220), await ask('c', 'tcp', address, 30_220)]
        return udp === name && tcp === name
      }
      const addedMs = await until(`NodePorts at ${address}`, PATIENCE_MS, answers('a'))
      ip('addr', 'del', whole, 'dev', 'v-outside')
      await until(`none at ${address}`, PATIENCE_MS, async () => (await ask('outside', 'udp', address, 30_220)) !== 'a')
      t.pass(`${address}: ${Math.round(addedMs)} ms after it is there`)
    }
  })

  await t.test('addresses of the service prefixes that no service has', async (t) => {
    await askAll(t, UNALLOCATED, { tcp: /^timeout$/, udp: /^(timeout|EPERM)$/ }, 'dropped')
    await askAll(t, 221, { tcp: /^timeout$/, udp: /^(timeout|EPERM)$/ }, 'of a proxy that is not here')
    const [kubeProxy] = KUBE_PROXIES
    kubeProxy!.start(
      FAMILIES.flatMap((family) =>
        (['tcp', 'udp'] as const).map((protocol): Forward => ({
          ...{ family, protocol, clusterIp: clusterIp(221, family), port: 80 },
          ...{ nodeAddress: ADDRESSES.node[family], nodePort: 30_221 },
          endpoint: { address: ADDRESSES.b[family], port: PORT },
        })),
      ),
    )
    await askAll(t, 221, { tcp: /^b$/, udp: /^b$/ }, 'of another proxy')
    kubeProxy!.stop()
  })

  await t.test('affinity holds while it is used, and no longer than it says', async (t) => {
    await Promise.all(
      FAMILIES.flatMap((family) =>
        // TCP from `c` goes by BPF, from `outside` by nft.
        (
          [
            ['c', 'tcp'],
            ['outside', 'tcp'],
            ['c', 'udp'],
          ] as const
        ).map(async ([from, protocol]) => {
          const title = `${protocol} from ${from} over IPv${family}`
          const call = () => ask(from, protocol, clusterIp(222, family), 80)
          const first = await call()
          const seen = new Set([first])
          for (let i = 0; i < 6; i++) {
            await sleep((AFFINITY_SECONDS * 1_000) / 4)
            seen.add(await call())
          }
          t.strictSame([...seen], [first], `${title}: for longer, since it is used`)
          let other = first
          for (let i = 0; i < 12 && other === first; i++) {
            await sleep(AFFINITY_SECONDS * 1_000 + 300)
            other = await call()
          }
          t.not(other, first, `${title}: by chance again when it was not used`)
        }),
      ),
    )
  })

  await t.test('SCTP', async (t) => {
    const children = await answerSctp(world.namespaceOf('a'), 'a', PORT)
    // One that waits in the kernel for a packet hears of no other signal.
    t.teardown(() => children.forEach((child) => child.kill('SIGKILL')))
    for (const family of FAMILIES) {
      const call = (from: Place, address: string, port: number) => callSctp(world.namespaceOf(from), address, port)
      t.equal(call('c', ADDRESSES.a[family], PORT), `a ${ADDRESSES.c[family]}`, `a direct call over IPv${family}`)
      t.equal(call('c', clusterIp(223, family), 82), `a ${ADDRESSES.c[family]}`, `ClusterIP over IPv${family}`)
      t.match(call('node', clusterIp(223, family), 82), /^a /, `ClusterIP from the node over IPv${family}`)
      const own = family === 4 ? '192.168.9.1' : 'fd00:192::1'
      t.match(call('outside', own, 30_223), /^a (10\.244\.1\.1|fd00:244:1::1)$/, `NodePort over IPv${family}`)
      t.equal(call('c', clusterIp(224, family), 82), 'ECONNREFUSED', `no endpoints over IPv${family}`)
      t.equal(call('c', clusterIp(223, family), 83), 'ECONNREFUSED', `another port over IPv${family}`)
    }
  })

  await t.test("EdgeMesh's label: left to it, or ours where only what is labelled is", async (t) => {
    const dropped = { tcp: /^timeout$/, udp: /^(timeout|EPERM)$/ }
    await askAll(t, 225, dropped, 'all')
    snapshot = snapshotOf('labelled')
    await ours.apply()
    await askAll(t, 225, { tcp: /^a$/, udp: /^a$/ }, 'labelled')
    await askAll(t, 220, dropped, 'labelled, and it is not')
  })
  await ours.stop()
}
