// The contract of services, to be run against anything that carries their connections.

import { spawnSync } from 'node:child_process'
import { createSocket, type Socket } from 'node:dgram'
import { connect } from 'node:net'
import { setTimeout as sleep } from 'node:timers/promises'
import t, { type Test } from 'tap'
import { createBalancer } from '../../agent/balance.ts'
import { clusterOf } from '../../agent/cluster.ts'
import type { ServiceSnapshot } from '../../agent/nft-loop.ts'
import { hereOf, type Here } from '../../agent/topology.ts'
import { FAMILIES, type Family } from '../../lib/cidr.ts'
import { CASES, type Case, type CaseCall, type Expected } from './service-cases.ts'
import { destination, objectsOf } from './service-objects.ts'
import { ADDRESSES, NODES, POD_GATEWAY, type World } from './service-world.ts'

/** What carries connections to services. */
export type DataPath = {
  readonly name: string
  /** Resolves once new connections go by the snapshot. */
  readonly apply: (snapshot: ServiceSnapshot) => Promise<void>
  /** False where it leaves the source of a connection, or a rule about packets, to what is below it. */
  readonly carriesPackets: boolean
  /** TCP calls are redirected when a process connects. */
  readonly atConnect?: true
}

/** Two endpoints that answer in turn by chance: that one of them never did is as likely as one in 2^23. */
const COUNT = 24
let here: Here | undefined
const balancer = createBalancer()

/** A snapshot of cases by their index in the table, from 1. */
export function snapshotOf(cases: ReadonlyMap<number, Case>): ServiceSnapshot {
  const objects = [...cases].map(([index, each]) => objectsOf(each, index))
  const cluster = clusterOf({
    services: objects.map(({ service }) => service),
    slices: objects.flatMap(({ slices }) => slices),
    nodes: NODES,
    nodePools: [],
    gateways: [],
  })
  here ??= hereOf(cluster, 'h1')
  return { cluster, here, balance: balancer({ cluster, here }) }
}

export async function runContract(world: World, path: DataPath): Promise<void> {
  await path.apply(snapshotOf(new Map(CASES.map((each, i) => [i + 1, each]))))
  await t.test(`${path.name}: who answers`, async (t) => {
    await Promise.all(
      CASES.flatMap((each, i) =>
        (each.packets && !path.carriesPackets ? [] : each.calls).flatMap((call) =>
          FAMILIES.flatMap((family) =>
            (call.protocol === undefined ? (['tcp', 'udp'] as const) : [call.protocol]).map(async (protocol) => {
              const wanted = typeof call.expect === 'object' ? COUNT : 1
              const to = destination(i + 1, call, family)
              const answers = await world.call(call.from, { protocol, ...to, count: wanted })
              const title = `${each.name}: ${protocol} from ${call.from} to ${call.to} over IPv${family}`
              const { expect, atConnect = expect } = call
              const expected = path.atConnect && protocol === 'tcp' ? atConnect : expect
              check(t, answers, { ...call, expect: expected }, family, title)
            }),
          ),
        ),
      ),
    )
  })
  await affinity(world, path)
  await established(path)
  await udpFlows(path)
  await noPing(world, path)
}

function check(t: Test, answers: readonly string[], { from, expect }: CaseCall, family: Family, title: string): void {
  const names = (list: readonly string[]) => [...new Set(list.map((answer) => answer.split(' ')[0]!))].sort()
  if (expect === 'dropped') return void t.strictSame(answers, ['timeout'], title)
  // A packet that the node itself sends is refused before it leaves, which some kernels tell by another number.
  if (expect === 'refused')
    return void t.match(answers.join(), from === 'node' ? /^(ECONNREFUSED|EPERM)$/ : /^ECONNREFUSED$/, title)
  if (expect === 'unanswered') return void t.notMatch(answers.join(), / /, title)
  t.strictSame(names(answers), [...expect.by].sort(), title)
  if (expect.sees === undefined) return
  const seen = [...new Set(answers.map((answer) => answer.split(' ')[1]!))]
  const own = ADDRESSES[from][family]
  if (expect.sees === 'caller') t.strictSame(seen, [own], `${title}: from the caller’s own address`)
  else
    t.ok(
      seen.every((address) => nodeAddresses(family).includes(address)),
      `${title}: from an address of the node, not ${seen.join()}`,
    )
}

const nodeAddresses = (family: Family): readonly string[] => [
  ADDRESSES.node[family],
  POD_GATEWAY[family],
  family === 4 ? '192.168.1.1' : 'fd00:192::1',
]

/** 13: a client stays where it is, by whatever address it calls, for as long as its endpoint is there. */
async function affinity(world: World, path: DataPath): Promise<void> {
  const sticky = (endpoints: Case['endpoints']): Case => ({
    name: 'affinity',
    spec: { type: 'NodePort', sessionAffinity: 'ClientIP' },
    external: true,
    endpoints,
    calls: [],
  })
  const all = [['a'], ['b'], ['far']] as const
  await t.test(`${path.name}: affinity`, async (t) => {
    await path.apply(snapshotOf(new Map([[200, sticky(all)]])))
    for (const family of FAMILIES)
      for (const protocol of ['tcp', 'udp'] as const) {
        const title = `${protocol} over IPv${family}`
        const ask = async (to: CaseCall['to'], from: 'c' | 'outside' = 'c') => {
          const call = { from, to, expect: { by: [] } as Expected }
          const answers = await world.call(from, { protocol, ...destination(200, call, family), count: 12 })
          return [...new Set(answers.map((answer) => answer.split(' ')[0]!))]
        }
        const first = await ask('cluster')
        t.equal(first.length, 1, `${title}: one endpoint`)
        t.strictSame([await ask('external'), await ask('node')], [first, first], `${title}: by other addresses too`)
        t.equal((await ask('node', 'outside')).length, 1, `${title}: from outside`)
        await path.apply(snapshotOf(new Map([[200, sticky(all.filter(([place]) => place !== first[0]))]])))
        const second = await ask('cluster')
        t.equal(second.length, 1, `${title}: another one when it goes`)
        t.not(second[0], first[0])
        await path.apply(snapshotOf(new Map([[200, sticky(all)]])))
        t.strictSame(await ask('cluster'), second, `${title}: and stays there`)
      }
  })
}

const moving = (place: 'a' | 'b'): ReadonlyMap<number, Case> =>
  new Map([[201, { name: 'moving', spec: { type: 'NodePort' }, endpoints: [[place]], calls: [] }]])

/** 15: what is established goes on. */
async function established(path: DataPath): Promise<void> {
  await t.test(`${path.name}: a connection outlives its endpoint’s time in the service`, async (t) => {
    await path.apply(snapshotOf(moving('a')))
    const socket = connect(80, '10.96.0.201')
    const received: string[] = []
    socket.setEncoding('utf8').on('data', (text: string) => received.push(text))
    for (let i = 0; i < 200 && received.length < 1; i++) await sleep(5)
    await path.apply(snapshotOf(moving('b')))
    socket.write('still there')
    for (let i = 0; i < 200 && received.length < 2; i++) await sleep(5)
    t.match(received.join(''), /^a .*\nstill there$/)
    socket.destroy()
  })
}

/** 15: a UDP flow has no end of its own, so it follows. */
async function udpFlows(path: DataPath): Promise<void> {
  if (!path.carriesPackets) return
  await t.test(`${path.name}: a flow that keeps its UDP socket follows the endpoint`, async (t) => {
    await path.apply(snapshotOf(moving('a')))
    const flows = await Promise.all(
      FAMILIES.flatMap((family) =>
        (['cluster', 'node'] as const).map(async (to) => {
          const { address, port } = destination(201, { from: 'node', to, expect: 'refused' }, family)
          return { title: `${to} over IPv${family}`, ...(await openFlow(address, port, family)) }
        }),
      ),
    )
    for (const { title, until } of flows) t.ok(await until('a'), title)
    await path.apply(snapshotOf(moving('b')))
    for (const { title, until } of flows) t.ok(await until('b'), title)
    await path.apply(snapshotOf(new Map()))
    for (const { title, silence } of flows) t.ok(await silence(), `${title}: silent without the service`)
    for (const { socket } of flows) socket.close()
  })
}

/** Of a flow, until it is where it should be. */
const QUESTIONS = 60
const UNANSWERED = 6

async function openFlow(address: string, port: number, family: Family) {
  const socket: Socket = createSocket(`udp${family}`)
  let heard: string | undefined
  socket.on('message', (data) => (heard = data.toString().split(' ')[0]))
  socket.on('error', () => undefined)
  await new Promise<void>((resolve) => socket.connect(port, address, resolve))
  const ask = async (): Promise<void> => {
    socket.send('?', () => undefined)
    await sleep(25)
  }
  /** Whether that one answers, within QUESTIONS. */
  const until = async (name: string): Promise<boolean> => {
    heard = undefined
    for (let i = 0; i < QUESTIONS && heard !== name; i++) await ask()
    return heard === name
  }
  /** Whether nobody answers UNANSWERED of them in a row: rules do not wait for flows, which go some time after them. */
  const silence = async (): Promise<boolean> => {
    let unanswered = 0
    for (let i = 0; i < QUESTIONS && unanswered < UNANSWERED; i++) {
      heard = undefined
      await ask()
      unanswered = heard === undefined ? unanswered + 1 : 0
    }
    return unanswered === UNANSWERED
  }
  return { socket, until, silence }
}

/** 20: there is nothing at a ClusterIP but its ports. */
async function noPing(world: World, path: DataPath): Promise<void> {
  if (!path.carriesPackets) return
  await t.test(`${path.name}: ClusterIPs do not answer ping`, async (t) => {
    await path.apply(snapshotOf(moving('a')))
    const ping = (address: string) =>
      spawnSync('ip', ['netns', 'exec', world.namespaceOf('c')!, 'ping', '-c1', '-W1', address]).status
    t.equal(ping(ADDRESSES.a[4]), 0, 'pods do')
    t.not(ping('10.96.0.201'), 0)
  })
}
