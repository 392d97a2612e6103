// Which nodes are objects of the cluster, and which were. A certificate that was issued before its node was deleted counts
// for nothing any more; a node that is made again by the same name joins again. A node that never was an object is let in:
// machines join before their kubelet registers them, and what is no object is in no pool and reaches nobody's pods. Pure.

export type Kept = {
  /** Objects as last seen, with their UIDs. */
  readonly objects: Readonly<Record<string, string>>
  /** When each was found deleted, Unix milliseconds. */
  readonly deleted: Readonly<Record<string, number>>
}

export const NOTHING_KEPT: Kept = { objects: {}, deleted: {} }

/** An editor or a checkout may take a file away for a moment. */
export const GONE_AFTER_MS = 2_000
const MAX_DELETED = 100_000

export class Members {
  readonly #objects: Map<string, string>
  readonly #deleted: Map<string, number>
  readonly #missingSinceMs = new Map<string, number>()
  readonly #uidsCount: boolean

  /**
   * @param uidsCount whether an object with another UID is another: that of an API with one memory is, that of a folder,
   * which several relays may serve, is not.
   */
  constructor({ objects, deleted }: Kept, uidsCount: boolean) {
    this.#objects = new Map(Object.entries(objects))
    this.#deleted = new Map(Object.entries(deleted))
    this.#uidsCount = uidsCount
  }

  /**
   * @param nodes all that the cluster names now, by name, with their UIDs. None at all is taken for a mistake.
   * @param nowMs Unix milliseconds. @param agoMs a clock that does not jump.
   * @returns those that are found deleted by this, and whether there is anything new to be kept.
   */
  look(nodes: ReadonlyMap<string, string>, nowMs: number, agoMs: number): { gone: readonly string[]; isNews: boolean } {
    if (nodes.size === 0) return { gone: [], isNews: false }
    const gone: string[] = []
    let isNews = false
    for (const [node, uid] of this.#objects) {
      const present = nodes.get(node)
      if (present === uid || (present !== undefined && !this.#uidsCount)) this.#missingSinceMs.delete(node)
      else if (present !== undefined || this.#isGone(node, agoMs)) gone.push(node)
    }
    for (const node of gone) {
      this.#objects.delete(node)
      this.#missingSinceMs.delete(node)
      this.#deleted.delete(node)
      this.#deleted.set(node, nowMs)
      if (this.#deleted.size > MAX_DELETED) this.#deleted.delete(this.#deleted.keys().next().value!)
    }
    for (const [node, uid] of nodes)
      if (this.#objects.get(node) !== uid) {
        this.#objects.set(node, uid)
        isNews = true
      }
    return { gone, isNews: isNews || gone.length > 0 }
  }

  #isGone(node: string, agoMs: number): boolean {
    const sinceMs = this.#missingSinceMs.get(node) ?? agoMs
    this.#missingSinceMs.set(node, sinceMs)
    return agoMs - sinceMs >= GONE_AFTER_MS
  }

  /** Whether somebody has to look again soon, though nothing changes. */
  get isWaiting(): boolean {
    return this.#missingSinceMs.size > 0
  }

  /** When a node of this name was last deleted. */
  deletedMs(node: string): number | undefined {
    return this.#deleted.get(node)
  }

  /**
   * @param issuedMs when the certificate was issued.
   * @returns why it counts no more; undefined where it does.
   */
  refusal(node: string, issuedMs: number): string | undefined {
    const deletedMs = this.#deleted.get(node)
    if (deletedMs === undefined || issuedMs > deletedMs) return undefined
    return `node ${node} was deleted from the cluster at ${new Date(deletedMs).toISOString()}, and its certificate is from before`
  }

  /** @param longestMs how long a certificate can count: what was deleted before that needs no mention. */
  kept(nowMs: number, longestMs: number): Kept {
    for (const [node, deletedMs] of this.#deleted) if (nowMs - deletedMs > longestMs) this.#deleted.delete(node)
    return { objects: Object.fromEntries(this.#objects), deleted: Object.fromEntries(this.#deleted) }
  }
}
