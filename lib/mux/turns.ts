// Whose turn it is to send on a session: deficit round robin in which a flow that had nothing to send goes before those
// that always have, for one quantum (Shreedhar and Varghese 1996; the sparse flows of RFC 8290 §4). A key stroke does not
// wait for bulk, whoever sends it and whatever it is.

export type Flow = {
  /** It has something that may be sent now. */
  readonly ready: boolean
}

export const QUANTUM_BYTES = 16 * 1024

type Turn<F extends Flow> = { readonly flow: F; deficit: number }

export class Turns<F extends Flow> {
  #sparse: Turn<F>[] = []
  #bulk: Turn<F>[] = []
  readonly #queued = new Set<F>()

  /** @param sparse it had nothing to send until now; else it had no window. */
  add(flow: F, sparse: boolean): void {
    if (this.#queued.has(flow)) return
    this.#queued.add(flow)
    ;(sparse ? this.#sparse : this.#bulk).push({ flow, deficit: QUANTUM_BYTES })
  }

  /**
   * Lets the flow whose turn it is send one frame.
   * @param send `most` is what it may; @returns the bytes that it sent.
   * @returns false if no flow has anything to send.
   */
  next(send: (flow: F, most: number) => number): boolean {
    for (;;) {
      const list = this.#sparse.length > 0 ? this.#sparse : this.#bulk
      const turn = list[0]
      if (turn === undefined) return false
      if (turn.deficit <= 0) {
        turn.deficit += QUANTUM_BYTES
        list.shift()
        this.#bulk.push(turn)
      } else if (!turn.flow.ready) {
        list.shift()
        // Once through the others: or it would be sparse again at once, and the others would starve.
        if (list === this.#sparse && this.#bulk.length > 0) this.#bulk.push(turn)
        else this.#queued.delete(turn.flow)
      } else {
        // Bulk that has just begun stands among the sparse ones: for a quantum and no more, where others wait.
        const most = list === this.#sparse && this.#queued.size > 1 ? turn.deficit : Infinity
        turn.deficit -= send(turn.flow, most)
        return true
      }
    }
  }
}
