// What one change of a mesh costs the relay and the gateways, one change of each kind after the other.

import { collectGarbage } from '../garbage.ts'
import type { SimGateway } from './gateway.ts'
import type { World } from './world.ts'

export type ChangeKind = (typeof CHANGES)[number]['kind']

export type Cost = {
  readonly kind: ChangeKind
  /** Sessions with the relay after it. */
  readonly sessions: number
  /** From the relay to gateways. */
  readonly messages: number
  readonly bytes: number
  /** Processor time of the relay, and of a gateway that is not the one that changed: the mean and the sum over all. */
  readonly relayMs: number
  readonly gatewayMs: number
  readonly totalMs: number
  /** Peers that a gateway planned anew, the most of any gateway but the one that changed. */
  readonly peers: number
  /** How often a gateway compared a whole device or table with what it wants: the mean. */
  readonly looks: number
  /** Pairs of gateways whose WireGuard peers or routes were touched, and those of them that have no part in the change. */
  readonly pairs: number
  readonly strayPairs: number
  /** Sessions that the relay ended, and why. */
  readonly ended: readonly string[]
}

/** Long enough for a change to reach everybody and to be acted on. */
const SETTLE_MS = 3_000
/** A pair goes cold 60 s after its last traffic, and the other side 10 s later. */
const COLD_MS = 75_000

type Change = {
  readonly kind: string
  /** Bounds; report.ts holds them. */
  readonly messagesMax: (sessions: number) => number
  readonly peersMax: number
  readonly settleMs: number
  /** @returns the gateways that it is about. */
  readonly make: (world: World) => readonly SimGateway[]
}

/** What does not grow: a word or two to those that the change is about. */
const FEW = 16

export const CHANGES = [
  {
    kind: 'nothing',
    peersMax: 0,
    messagesMax: () => 0,
    settleMs: SETTLE_MS,
    make: () => [],
  },
  {
    kind: 'a gateway has new candidates',
    peersMax: 1,
    messagesMax: (sessions) => sessions,
    settleMs: SETTLE_MS,
    make: (world) => {
      world.renumber(world.gateway(1))
      return [world.gateway(1)]
    },
  },
  {
    kind: 'a node object changes, nothing of ours',
    peersMax: 0,
    messagesMax: () => 0,
    settleMs: SETTLE_MS,
    make: (world) => {
      world.touchNode(1)
      return []
    },
  },
  {
    kind: 'a pair becomes warm',
    peersMax: 0,
    messagesMax: () => FEW,
    settleMs: SETTLE_MS,
    make: (world) => {
      world.gateway(1).traffic(world.gateway(2).site.node)
      return [world.gateway(1), world.gateway(2)]
    },
  },
  {
    kind: 'a pair becomes cold',
    peersMax: 0,
    messagesMax: () => 0,
    settleMs: COLD_MS,
    make: (world) => [world.gateway(1), world.gateway(2)],
  },
  {
    kind: 'a gateway restarts',
    peersMax: 1,
    messagesMax: (sessions) => sessions + FEW,
    settleMs: SETTLE_MS,
    make: (world) => {
      world.restart(world.gateway(1))
      return [world.gateway(1)]
    },
  },
  {
    kind: 'a pool is added',
    peersMax: 1,
    // Everybody learns of one, and one of everybody.
    messagesMax: (sessions) => 2 * sessions + FEW,
    settleMs: SETTLE_MS,
    make: (world) => [world.addPool()],
  },
  {
    kind: 'a pool is removed',
    peersMax: 0,
    messagesMax: (sessions) => sessions,
    settleMs: SETTLE_MS,
    make: (world) => {
      const gateway = [...world.gateways.values()].at(-1)!
      world.removePool(gateway)
      return [gateway]
    },
  },
  {
    kind: 'the relay restarts',
    peersMax: 0,
    messagesMax: (sessions) => 2 * sessions,
    settleMs: SETTLE_MS,
    make: (world) => {
      world.relay.restart()
      return []
    },
  },
] as const satisfies readonly Change[]

export async function costsOf(world: World): Promise<readonly Cost[]> {
  const costs: Cost[] = []
  for (const change of CHANGES) costs.push(await costOf(world, change))
  return costs
}

async function costOf(world: World, change: (typeof CHANGES)[number]): Promise<Cost> {
  const { relay, clock } = world
  for (const gateway of world.gateways.values()) {
    gateway.takeWork()
    gateway.kernel.takeWork()
  }
  relay.ended.length = 0
  relay.sent = { messages: 0, bytes: 0 }
  // What others left behind is nobody's work here.
  collectGarbage()
  const before = new Map(clock.spentMs)
  const about = change.make(world)
  await clock.run(change.settleMs)

  const nodes = new Set(about.map(({ site }) => site.node))
  const others = [...world.gateways.values()].filter(({ site }) => !nodes.has(site.node))
  const spentMs = (owner: string) => (clock.spentMs.get(owner) ?? 0) - (before.get(owner) ?? 0)
  const gatewayMs = mean(others.map(({ site }) => spentMs(site.node)))
  const pairs = [...world.gateways.values()].flatMap((gateway) =>
    touchedBy(world, gateway, about).map((peer) => [gateway.site.node, peer] as const),
  )
  return {
    kind: change.kind,
    sessions: relay.sessions,
    messages: relay.sent.messages,
    bytes: relay.sent.bytes,
    relayMs: spentMs('relay'),
    gatewayMs,
    totalMs: gatewayMs * relay.sessions,
    peers: Math.max(...others.map((gateway) => gateway.takeWork().peers.size)),
    looks: mean(others.map((gateway) => gateway.kernel.work.looks)),
    pairs: pairs.length,
    strayPairs: pairs.filter(([gateway, peer]) => !nodes.has(gateway) && !nodes.has(peer)).length,
    ended: [...relay.ended],
  }
}

/** Nodes of the peers whose WireGuard settings or routes a gateway touched. */
function touchedBy(world: World, gateway: SimGateway, about: readonly SimGateway[]): readonly string[] {
  const { keys, prefixes } = gateway.kernel.work
  const known = [...world.sites(), ...about.map(({ site }) => site)]
  return known
    .filter((site) => keys.has(site.publicKey) || site.podCidrs.some((cidr) => prefixes.has(cidr)))
    .map(({ node }) => node)
    .filter((node, i, all) => all.indexOf(node) === i)
}

const mean = (values: readonly number[]): number =>
  values.length === 0 ? 0 : values.reduce((sum, value) => sum + value, 0) / values.length
