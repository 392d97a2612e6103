// What the active gateway tells the agents of its pool, with each heartbeat: nodes that are silent here and in other pools,
// paths that are not direct, endpoints that some agent finds silent. Pure.
//
// Between pools, silent nodes are told inside WireGuard's devices, on the port of the echoes: who sends it is proven, and
// it counts for the sender's own pool alone.
//
//   u32 magic "FMSN" | u8 version 1 | 3 zero bytes | findings (lib/wire/lan-findings.ts)

import type { Pool } from '../lib/k8s/pools.ts'
import { decodeFindings, encodeFindings, type Finding } from '../lib/wire/lan-findings.ts'

export type PathFinding = Omit<Extract<Finding, { kind: 'path' }>, 'kind'>

/** What another pool's gateway, or an agent, said counts so long: both say it again each second. */
const HOLD_MS = 3_000
const MAX_ENDPOINTS = 16
const MAX_REMOTE = 64
/** Endpoints that are kept in mind, of all agents of a pool. */
const MAX_LEARNT = 256

export class Findings {
  /** By pool. */
  readonly #remote = new Map<string, { readonly nodes: readonly string[]; readonly atMs: number }>()
  /** By address and port. */
  readonly #endpoints = new Map<string, Extract<Finding, { kind: 'endpoint' }> & { readonly atMs: number }>()

  /** An agent of our pool says this. */
  fromAgent(findings: readonly Finding[], nowMs: number): void {
    for (const finding of findings) {
      if (finding.kind !== 'endpoint') continue
      const key = `${finding.address} ${finding.port}`
      this.#endpoints.delete(key)
      if (this.#endpoints.size < MAX_LEARNT) this.#endpoints.set(key, { ...finding, atMs: nowMs })
    }
  }

  /** The gateway of another pool says this of its own nodes. */
  fromPool({ name, nodes }: Pool, findings: readonly Finding[], nowMs: number): void {
    const told = findings.flatMap((finding) => (finding.kind === 'node' && finding.pool === name ? [finding.node] : []))
    this.#remote.set(name, { nodes: told.filter((node) => nodes.some((known) => known.name === node)), atMs: nowMs })
  }

  /** The most important first, since there may not be room for all. */
  list(own: readonly Finding[], paths: readonly PathFinding[], nowMs: number): readonly Finding[] {
    for (const [pool, { atMs }] of this.#remote) if (nowMs - atMs > HOLD_MS) this.#remote.delete(pool)
    for (const [key, { atMs }] of this.#endpoints) if (nowMs - atMs > HOLD_MS) this.#endpoints.delete(key)
    const remote = [...this.#remote].flatMap(([pool, { nodes }]) =>
      nodes.map((node): Finding => ({ kind: 'node', pool, node })),
    )
    const of = (wanted: PathFinding['state']) =>
      paths.flatMap((path): Finding[] => (path.state === wanted ? [{ kind: 'path', ...path }] : []))
    const endpoints = [...this.#endpoints.values()].slice(-MAX_ENDPOINTS)
    return [
      ...own,
      ...of('silent'),
      ...endpoints.map(({ kind, address, port }): Finding => ({ kind, address, port })),
      ...remote.slice(0, MAX_REMOTE),
      ...of('relayed'),
    ]
  }
}

export const silentNodes = (pool: string, nodes: readonly string[]): readonly Finding[] =>
  nodes.map((node): Finding => ({ kind: 'node', pool, node }))

const MAGIC = 0x464d534e
const HEADER_BYTES = 8

export function encodeSilence(findings: readonly Finding[]): Buffer {
  const head = Buffer.alloc(HEADER_BYTES)
  head.writeUInt32BE(MAGIC, 0)
  head[4] = 1
  return Buffer.concat([head, encodeFindings(findings)])
}

/** @returns undefined for what is something else. */
export function decodeSilence(datagram: Buffer): readonly Finding[] | undefined {
  if (datagram.length < HEADER_BYTES || datagram.readUInt32BE(0) !== MAGIC || datagram[4] !== 1) return undefined
  return decodeFindings(datagram.subarray(HEADER_BYTES))
}
