// Follows which nodes of our pool are alive (lib/liveness.ts), as active gateway and as standby, so that whoever takes over
// knows; tells other pools, and hears from them (gateway/findings.ts).

import type { Pool } from '../lib/k8s/pools.ts'
import { PRESENCE_MS } from '../lib/liveness.ts'
import type { Log } from '../lib/log.ts'
import type { LanChannel } from '../lib/net/lan-channel.ts'
import { LanLiveness } from '../lib/net/lan-liveness.ts'
import { tick } from '../lib/net/lifetime.ts'
import type { Finding } from '../lib/wire/lan-findings.ts'
import type { Presence } from '../lib/wire/lan.ts'
import { decodeSilence, encodeSilence, Findings, silentNodes, type PathFinding } from './findings.ts'

export type Neighbours = {
  /** An agent of our pool runs. */
  readonly heard: (said: Presence & { readonly node: string }) => void
  /** @param from the sender's link-local address inside a WireGuard device. @returns false for what is something else. */
  readonly onMessage: (from: string, datagram: Buffer) => boolean
  /** For the agents of our pool. */
  readonly findings: () => readonly Finding[]
  /** Nodes of our pool that do not answer. */
  readonly silent: () => readonly string[]
  /** Whether the agent of another node of our pool runs, as long as we are the active gateway: others hear of few. */
  readonly hasAgent: (node: string) => boolean
}

const STEP_MS = 200
const TELL_MS = 1_000
/** After the last silent node was heard again, that there is none is said so often. */
const TELL_WELL = 4
/** An agent that runs has spoken twice since. */
const AGENT_MS = 2.5 * PRESENCE_MS

export function runNeighbours(
  options: {
    readonly node: string
    readonly lan: LanChannel
    /** Of agents. */
    readonly agentPort: number
    readonly pool: () => Pool | undefined
    readonly pools: () => readonly Pool[]
    /** Whose gateway has a link-local address inside the devices. */
    readonly poolAt: (linkLocal: string) => string | undefined
    readonly isActive: () => boolean
    readonly paths: () => readonly PathFinding[]
    /** Says it to the active gateways of all pools whose path is up. */
    readonly tell: (datagram: Buffer) => void
    readonly log: Log
  },
  signal: AbortSignal,
): Neighbours {
  const { node, lan, agentPort, pool, log } = options
  const liveness = new LanLiveness({
    lan,
    port: agentPort,
    question: ({ name }) => lan.encode({ kind: 'presence', source: 'gateway', asks: true, pool: name })?.whole,
  })
  const findings = new Findings()
  const spokeMs = new Map<string, number>()
  let silent: readonly string[] = []
  let toldMs = -Infinity
  let tellWell = 0
  const now = (): number => performance.now()

  const tell = (own: Pool): void => {
    if (!options.isActive() || (silent.length === 0 && tellWell === 0) || now() - toldMs < TELL_MS) return
    toldMs = now()
    tellWell = silent.length > 0 ? TELL_WELL : tellWell - 1
    options.tell(encodeSilence(silentNodes(own.name, silent)))
  }

  const step = (): void => {
    const own = pool()
    if (own === undefined) return
    const others = new Set(own.nodes.map(({ name }) => name).filter((name) => name !== node))
    liveness.step(own, others)
    const was = silent
    silent = liveness.silent()
    for (const name of silent) if (!was.includes(name)) log.warn({ node: name }, 'a node of this pool is silent')
    for (const name of was) if (!silent.includes(name)) log.info({ node: name }, 'a node of this pool is heard again')
    if (silent.join() !== was.join()) toldMs = -Infinity
    tell(own)
  }

  const run = async (): Promise<void> => {
    while (!signal.aborted) {
      step()
      await tick(STEP_MS, signal)
    }
  }
  void run()

  return {
    heard: (said) => {
      if (said.pool !== pool()?.name) return
      if (said.node !== node) liveness.sign(said.node)
      if (said.source === 'agent') spokeMs.set(said.node, now())
      if (said.findings !== undefined) findings.fromAgent(said.findings, now())
    },
    onMessage: (from, datagram) => {
      const told = decodeSilence(datagram)
      if (told === undefined) return false
      const name = options.poolAt(from)
      const other = options.pools().find((candidate) => candidate.name === name)
      if (other !== undefined) findings.fromPool(other, told, now())
      return true
    },
    findings: () => {
      const own = pool()
      return own === undefined ? [] : findings.list(silentNodes(own.name, silent), options.paths(), now())
    },
    silent: () => silent,
    hasAgent: (name) => now() - (spokeMs.get(name) ?? -Infinity) < AGENT_MS,
  }
}
