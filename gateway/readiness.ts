// Which peers are told that our devices know their keys. A pair that nobody uses costs nothing, not even that word: of a
// thousand gateways that start together each would say it a thousand times. Who has packets asks (path.ts), and who asked
// before we knew its key is told when we do. Pure.

import { MAX_PEERS } from './announcement.ts'

export class Readiness {
  /** Who asked, and is not configured yet. */
  readonly #asked = new Set<string>()
  readonly #tell: (node: string, reply: boolean) => void

  /** @param tell says that our devices know a peer's key: in reply, or to hear the same of the peer. */
  constructor(tell: (node: string, reply: boolean) => void) {
    this.#tell = tell
  }

  /** A peer's devices know our key. @param reply false where it wants to hear the same. */
  heard(node: string, reply: boolean, isConfigured: boolean): void {
    if (reply) return
    if (isConfigured) return this.#tell(node, true)
    if (this.#asked.size >= MAX_PEERS) this.#asked.delete(this.#asked.values().next().value!)
    this.#asked.add(node)
  }

  /** Our devices know a peer's key. @param isAwake whether there are packets for it. */
  configured(node: string, isAwake: boolean): void {
    if (this.#asked.delete(node) || isAwake) this.#tell(node, false)
  }

  /**
   * A peer announced itself anew: it may have started on a machine that was reset, and what we sent in the meantime is
   * lost. @param isAwake whether there was something.
   */
  announced(node: string, isAwake: boolean): void {
    if (isAwake) this.#tell(node, false)
  }
}
