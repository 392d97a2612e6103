// The agent on its pool's LAN: hears which gateway is active, cloud or no cloud, and what it tells of nodes, paths and
// endpoints; says that this node is alive. Until a gateway is heard, the order of the objects counts.

import type { Pool } from '../lib/k8s/pools.ts'
import { Follower, type HeardMessage } from '../lib/lan.ts'
import { lanAddressesOf } from '../lib/lan-addresses.ts'
import { PRESENCE_MS } from '../lib/liveness.ts'
import type { Log } from '../lib/log.ts'
import type { NodeIdentity } from '../lib/net/identity.ts'
import { openLanChannel } from '../lib/net/lan-channel.ts'
import { LanLiveness } from '../lib/net/lan-liveness.ts'
import { onAbort, tick } from '../lib/net/lifetime.ts'
import type { Finding } from '../lib/wire/lan-findings.ts'

export type AgentLan = {
  /** The active gateway; undefined while none of the pool's gateways was heard that may be it. */
  readonly heard: () => string | undefined
  /** False for a moment after the start, in which a gateway that is there will be heard: routes stay as they are. */
  readonly settled: () => boolean
  /** What the active gateway tells, and its own silence. */
  readonly findings: () => readonly Finding[]
  readonly problems: () => readonly string[]
}

/** Four heartbeats, one of which carries the certificate. */
const SETTLE_MS = 1_500
const STEP_MS = 250
/** Gateways that are to know whether we are alive: the active one, and who may follow it. */
const TOLD_GATEWAYS = 3
/** What a gateway told counts so long after its last heartbeat; the next one takes over sooner. */
const TOLD_MS = 10_000
const NOTHING: readonly Finding[] = []

export function openAgentLan(
  options: {
    readonly identity: Pick<NodeIdentity, 'certificatePem' | 'keyPem' | 'caPem'>
    readonly node: string
    /** Which start of this agent this is, from 1. */
    readonly boot: number
    /** Of gateways; ours is the next. */
    readonly lanPort: number
    readonly pool: () => Pool | undefined
    /** What we tell with each word. */
    readonly own: () => readonly Finding[]
    /** The active gateway is another. */
    readonly onChange: () => void
    /** What is told is another. */
    readonly onFindings: () => void
    readonly log: Log
  },
  signal: AbortSignal,
): AgentLan {
  const { node, lanPort, pool, onChange, log } = options
  const follower = new Follower()
  let told: { readonly findings: readonly Finding[]; readonly atMs: number } | undefined
  let findings = NOTHING
  let saidMs = -Infinity
  /** Of our own findings. */
  let ownSaid = '[]'
  let waiting = true
  const now = (): number => performance.now()
  const activeOf = (own: Pool | undefined): string | undefined => follower.active(own?.gateways ?? [])

  const settle = (): void => {
    if (signal.aborted) return
    waiting = false
    onChange()
  }
  const timer = setTimeout(settle, SETTLE_MS)
  onAbort(signal, () => clearTimeout(timer))

  const channel = openLanChannel(
    {
      ...options,
      source: 'agent',
      port: lanPort + 1,
      isMember: (name, { kind }) => {
        const own = pool()
        if (kind === 'heartbeat') return own?.gateways.includes(name) === true
        return own?.nodes.some((member) => member.name === name) === true
      },
      onMessage: (said, answer) => {
        const own = pool()
        if (own === undefined || said.pool !== own.name) return
        liveness.sign(said.node)
        if (said.kind === 'heartbeat') hear(own, said)
        else if (said.asks) {
          const datagram = presence(own, false)
          if (datagram !== undefined) answer(datagram)
        }
      },
    },
    signal,
  )
  /** Of the active gateway's node alone. */
  const liveness = new LanLiveness({ lan: channel, port: lanPort + 1, question: (own) => presence(own, true) })
  const hear = (own: Pool, said: HeardMessage & { readonly kind: 'heartbeat' }): void => {
    const isNews = follower.heard(said, now())
    if (isNews) {
      log.info({ pool: said.pool, gateway: said.node, term: said.term }, 'active gateway')
      clearTimeout(timer)
      settle()
    }
    if (said.node !== activeOf(own) || said.role !== 'active') return
    told = { findings: said.findings ?? NOTHING, atMs: now() }
    compare(own)
  }
  const presence = ({ name }: Pool, asks: boolean): Buffer | undefined =>
    channel.encode({ kind: 'presence', source: 'agent', asks, pool: name, findings: options.own() })?.whole

  /** What is told, as long as it counts, and that its teller is silent. */
  const compare = (own: Pool): void => {
    const gateway = activeOf(own)
    if (told !== undefined && now() - told.atMs > TOLD_MS) told = undefined
    const dead = liveness
      .silent()
      .flatMap((silent): Finding[] => (silent === gateway ? [{ kind: 'node', pool: own.name, node: silent }] : []))
    const next = dead.length === 0 ? (told?.findings ?? NOTHING) : [...dead, ...(told?.findings ?? NOTHING)]
    if (next === findings || JSON.stringify(next) === JSON.stringify(findings)) return
    findings = next
    options.onFindings()
  }

  const say = (own: Pool): void => {
    saidMs = now()
    ownSaid = JSON.stringify(options.own())
    // The gateway on our own node needs no sign of life, but passes on what we found.
    const isToldHere = options.own().length > 0
    const gateway = activeOf(own)
    const others = own.gateways.filter((name) => name !== gateway).slice(0, TOLD_GATEWAYS - 1)
    const to = [...others, gateway].filter((name) => name !== undefined && (name !== node || isToldHere))
    if (to.length === 0) return
    const datagram = presence(own, false)
    if (datagram === undefined) return
    for (const member of own.nodes)
      if (to.includes(member.name))
        for (const address of lanAddressesOf(member)) channel.send(datagram, lanPort, address)
  }
  const step = (): void => {
    const own = pool()
    if (own === undefined) return
    const isNews = JSON.stringify(options.own()) !== ownSaid
    if (isNews || now() - saidMs >= PRESENCE_MS - STEP_MS / 2) say(own)
    const gateway = activeOf(own)
    liveness.step(own, new Set(gateway === undefined || gateway === node ? [] : [gateway]))
    compare(own)
  }
  const run = async (): Promise<void> => {
    while (!signal.aborted) {
      await tick(STEP_MS, signal)
      if (!signal.aborted) step()
    }
  }
  void run()

  return {
    heard: () => activeOf(pool()),
    // Where one node only may be the gateway there is nothing to hear.
    settled: () => !waiting || (pool()?.gateways.length ?? 0) < 2,
    findings: () => findings,
    problems: channel.problems,
  }
}
