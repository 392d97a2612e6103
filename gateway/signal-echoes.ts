// A frame that a peer sends by two relays is heard twice, one soon after the other: which of them is the first. Pure.

export class Echoes {
  readonly #heard = new Map<string, { readonly relay: string; readonly atMs: number }>()

  /** @param relay by which it came. */
  isNew(
    { kind, node, reply }: { readonly kind: string; readonly node: string; readonly reply: boolean },
    relay: string,
    nowMs: number,
  ): boolean {
    const key = `${kind} ${reply} ${node}`
    const before = this.#heard.get(key)
    if (before !== undefined && before.relay !== relay && nowMs - before.atMs < ECHO_MS) return false
    this.#heard.delete(key)
    this.#heard.set(key, { relay, atMs: nowMs })
    if (this.#heard.size > MAX_HEARD) this.#heard.delete(this.#heard.keys().next().value!)
    return true
  }
}

/** By how much the way by one relay may be longer. */
const ECHO_MS = 1_000
const MAX_HEARD = 4_096
