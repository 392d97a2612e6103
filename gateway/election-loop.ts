// Runs the pool's election (gateway/election.ts): hears and sends heartbeats on the LAN, keeps the term on disk, and does
// not speak as active before this gateway forwards.

import type { Pool } from '../lib/k8s/pools.ts'
import type { Heard } from '../lib/lan.ts'
import { lanAddressesOf } from '../lib/lan-addresses.ts'
import type { Log } from '../lib/log.ts'
import type { LanChannel } from '../lib/net/lan-channel.ts'
import { pause, tick } from '../lib/net/lifetime.ts'
import type { Finding } from '../lib/wire/lan-findings.ts'
import { Election, HEARTBEAT_MS, STEP_MS, type Kept, type Standing } from './election.ts'

export type Elections = {
  /** A gateway of our pool spoke. */
  readonly heard: (said: Heard) => void
  /** What the others of the pool are told. */
  readonly standing: () => Standing
  /** Since when the role is what it is, Unix milliseconds. */
  readonly since: () => number
  readonly standbys: () => readonly string[]
  /** Our pool by the objects, undefined while they do not name us; to be called whenever it may have changed. */
  readonly setPool: (pool: Pool | undefined) => void
  /**
   * Hands the role over. Resolves when a standby has it, none can take it, or none did in time.
   * @param prepare runs before the successor is asked, and must be bounded.
   */
  readonly leave: (prepare: (successor: string) => Promise<void>) => Promise<void>
  readonly pool: () => Pool | undefined
  readonly problems: () => readonly string[]
}

/** One datagram in so many tells agents our certificate; those that are not sure yet need it. */
const CERTIFICATE_EVERY = 4
const KEEP_MS = 300
/** How long a successor may take to be active, its own agent's time among it. */
const LEAVE_MS = 2_500
const LEAVE_STEP_MS = 50
/** How long our own agent may take. A gateway that hands its role over carries on meanwhile: nobody need hurry. */
const OWN_AGENT_MS = { handedOver: 1_000, else: 300 }
const OWN_AGENT_STEP_MS = 15

export function runElection(
  options: {
    readonly node: string
    readonly lan: LanChannel
    /** Ours on the LAN; agents have the next. */
    readonly port: number
    readonly kept: Kept | undefined
    readonly keep: (kept: Kept) => Promise<void>
    /** The role is another, or was just taken in another term. What it resolves before is told to nobody. */
    readonly onStanding: (standing: Standing) => Promise<void>
    /** Whether our node's agent still follows another gateway. */
    readonly isOverruled: () => Promise<boolean>
    /** Ends that where the agent is not there to do it. */
    readonly overrule: () => Promise<void>
    /** What the active gateway tells with each heartbeat. */
    readonly findings: () => readonly Finding[]
    readonly log: Log
  },
  signal: AbortSignal,
): Elections {
  const { node, lan, port, log } = options
  const now = (): number => performance.now()
  const election = new Election({ node, kept: options.kept, nowMs: now() })
  let pool: Pool | undefined
  let told = election.standing()
  let busy = false
  let beats = 0
  let beatMs = -Infinity

  const heard = (said: Heard): void => {
    if (said.pool !== pool?.name) return
    const known = election.standbys(now()).includes(said.node)
    const answer = election.heard(said, now())
    // A newcomer need not wait to learn who is active.
    if (answer || (!known && told.role === 'active' && said.role === 'standby')) beat()
    settle()
  }

  const encode = (standing: Standing, { name }: Pool) => {
    const role = standing.role === 'active' ? 'active' : 'standby'
    const findings = role === 'active' ? options.findings() : []
    return lan.encode({ kind: 'heartbeat', ...standing, role, pool: name, findings })
  }

  const beat = (): void => {
    if (pool === undefined || signal.aborted || !pool.gateways.includes(node)) return
    if (told.role === 'active' && !election.mayClaim(now())) return
    beatMs = now()
    const datagrams = encode(told, pool)
    if (datagrams === undefined) return
    const { whole, bare } = datagrams
    for (const member of pool.nodes) {
      const isAgentsTurn = told.role === 'active'
      const toAgent = beats % CERTIFICATE_EVERY === 0 ? whole : bare
      for (const address of lanAddressesOf(member)) {
        if (member.name !== node && pool.gateways.includes(member.name)) lan.send(whole, port, address)
        if (isAgentsTurn) lan.send(toAgent, port + 1, address)
      }
    }
    beats++
  }

  /** What was decided is made true, then kept, then told. */
  const settle = (): void => {
    if (busy || signal.aborted) return
    const standing = election.standing()
    if (sameStanding(standing, told)) return
    const { role, term } = standing
    if (role === told.role && (role !== 'active' || term === told.term)) {
      told = standing
      return
    }
    busy = true
    // Who steps down says so at once.
    if (role !== 'active') tell(standing)
    log.info({ pool: pool?.name, role, term, gateway: standing.follows }, 'role of this gateway')
    // A disk that is slow must not keep a pool cut off; what a crash in that moment loses, the others still know.
    const kept = Promise.race([options.keep({ term, active: role === 'active' }), pause(KEEP_MS, signal)])
    Promise.all([kept, makeTrue(standing)])
      .catch((err: unknown) => log.error({ err, role, term }, 'the role could not be taken in full; trying again'))
      .finally(() => {
        busy = false
        if (election.standing().role === role) tell(standing)
        settle()
      })
  }
  const makeTrue = async (standing: Standing): Promise<void> => {
    await options.onStanding(standing)
    if (standing.role === 'active') await convinceOwnAgent(standing)
  }
  /**
   * Our own agent goes before all others: while it sends what goes to other pools to the gateway before us, and that one's
   * agent to us, packets would run in circles.
   */
  const convinceOwnAgent = async (standing: Standing): Promise<void> => {
    const endMs = now() + OWN_AGENT_MS[standing.handedOver ? 'handedOver' : 'else']
    while (now() < endMs && !signal.aborted && (await options.isOverruled())) {
      const own = pool?.nodes.find(({ name }) => name === node)
      if (pool === undefined || own === undefined) return
      const whole = encode(standing, pool)?.whole
      if (whole === undefined) return
      for (const address of lanAddressesOf(own)) lan.send(whole, port + 1, address)
      await pause(OWN_AGENT_STEP_MS, signal)
    }
    if (await options.isOverruled()) await options.overrule()
  }
  const tell = (standing: Standing): void => {
    told = standing
    beats = 0
    beat()
  }

  const run = async (): Promise<void> => {
    while (!signal.aborted) {
      election.step(now())
      settle()
      if (now() - beatMs >= HEARTBEAT_MS - STEP_MS / 2) beat()
      await tick(STEP_MS, signal)
    }
  }
  void run()

  return {
    heard,
    standing: () => told,
    since: () => Math.round(Date.now() - (now() - election.sinceMs)),
    standbys: () => election.standbys(now()),
    setPool: (next) => {
      pool = next
      if (next !== undefined) election.setCandidates(next.gateways, now())
      settle()
    },
    leave: async (prepare) => {
      const first = election.successor(now())
      if (first === undefined) return
      log.info({ pool: pool?.name, successor: first }, 'handing the role over')
      // Killed from here on, we come back as one that listens first: other pools may send to the successor already.
      const kept = options
        .keep({ term: told.term, active: false })
        .catch((err: unknown) => log.warn({ err }, 'the disk still says that this gateway is active'))
      await Promise.race([kept, pause(KEEP_MS, signal)])
      await prepare(first)
      if (election.leave(now()) === undefined) return
      const endMs = now() + LEAVE_MS
      while (now() < endMs && election.standing().role === 'active' && !signal.aborted) {
        settle()
        beat()
        await pause(LEAVE_STEP_MS, signal)
      }
      // Agents that missed the successor's first word send their packets here until its next.
      await pause(HEARTBEAT_MS, signal)
    },
    pool: () => pool,
    problems: lan.problems,
  }
}

const sameStanding = (a: Standing, b: Standing): boolean =>
  a.role === b.role &&
  a.term === b.term &&
  a.follows === b.follows &&
  a.priority === b.priority &&
  a.leaving === b.leaving &&
  a.handedOver === b.handedOver
