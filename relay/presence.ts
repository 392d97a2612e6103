// Which replica of the relay holds sessions with which nodes. Each tells the others, as long as they are connected, so there
// is nothing to keep and nothing to lose. Pure: what was heard goes in, what is known comes out.
//
// On a WebSocket from one replica to another the one that was dialled sends JSON:
//   {"version":1,"here":["edge-7",…],"gone":[["edge-8",840000],…]}     nodes that take streams; that are gone, since so many ms
// Both lists change what was said before; the first frames of a connection start from nothing.

export const PRESENCE_PATH = '/fulmar/v1/presence'

export type PresenceFrame = {
  readonly here: readonly string[]
  /** With how long ago, in milliseconds: clocks differ. */
  readonly gone: readonly (readonly [node: string, agoMs: number])[]
}

/** Nodes in one frame; a longer list comes in several. */
export const MAX_FRAME_NODES = 1_000
/** A node's name has 253 characters. */
export const MAX_FRAME_BYTES = 512 * 1024
const MAX_NODES = 40_000
const MAX_GONE = 100_000

export const encodePresence = (frame: PresenceFrame): string => JSON.stringify({ version: 1, ...frame })

/** @returns undefined for anything else. */
export function decodePresence(text: string): PresenceFrame | undefined {
  let value: { here?: unknown; gone?: unknown } | null
  try {
    value = JSON.parse(text) as typeof value
  } catch {
    return undefined
  }
  const { here = [], gone = [] } = value ?? {}
  if (!Array.isArray(here) || !Array.isArray(gone)) return undefined
  if (here.length > MAX_FRAME_NODES || gone.length > MAX_FRAME_NODES) return undefined
  const isGone = (row: unknown): boolean =>
    Array.isArray(row) && typeof row[0] === 'string' && typeof row[1] === 'number' && row[1] >= 0
  if (!here.every((node) => typeof node === 'string') || !gone.every(isGone)) return undefined
  return { here, gone: gone as PresenceFrame['gone'] }
}

/** What the other replicas have said. */
export class Presence {
  readonly #nodes = new Map<string, Set<string>>()
  readonly #gone = new Map<string, number>()

  apply(replica: string, { here, gone }: PresenceFrame, nowMs: number): void {
    let nodes = this.#nodes.get(replica)
    if (nodes === undefined) this.#nodes.set(replica, (nodes = new Set()))
    for (const node of here) if (nodes.size < MAX_NODES) nodes.add(node)
    for (const [node, agoMs] of gone) {
      nodes.delete(node)
      this.#lost(node, nowMs - agoMs)
    }
  }

  /** The connection to a replica ended: what it said counts no more. */
  forget(replica: string, nowMs: number): void {
    for (const node of this.#nodes.get(replica) ?? []) this.#lost(node, nowMs)
    this.#nodes.delete(replica)
  }

  /** Names of replicas whose session with a node takes streams. */
  holders(node: string): readonly string[] {
    return [...this.#nodes].flatMap(([replica, nodes]) => (nodes.has(node) ? [replica] : []))
  }

  /** When another replica last lost a node. */
  lostAtMs(node: string): number | undefined {
    return this.#gone.get(node)
  }

  count(replica: string): number {
    return this.#nodes.get(replica)?.size ?? 0
  }

  #lost(node: string, atMs: number): void {
    const before = this.#gone.get(node) ?? -Infinity
    this.#gone.delete(node)
    this.#gone.set(node, Math.max(before, atMs))
    if (this.#gone.size > MAX_GONE) this.#gone.delete(this.#gone.keys().next().value!)
  }
}
