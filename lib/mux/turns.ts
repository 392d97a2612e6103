// Whose turn it is to send on a session: deficit round robin in which a flow that had nothing to send goes before those
// that always have, for one quantum (Shreedhar and Varghese 1996; the sparse flows of RFC 8290 §4), unless it has much to
// send at once. A key stroke does not wait for bulk, whoever sends it and whatever it is.

export type Flow = {
  /** It has something that may be sent now. */
  readonly ready: boolean
  /** Of data in its next frame. */
  readonly nextBytes: number
}

/** A frame of a whole chunk: what is cut costs both ends a write more. */
const QUANTUM_BYTES = 64 * 1024
/** A larger frame is bulk, also when its flow had nothing to send until now: one that is faster than its source never has for long. */
const SPARSE_BYTES = 16 * 1024

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
   * @param send returns the bytes that it sent, 0 where the frame is to wait.
   * @returns false if nothing was sent.
   */
  next(send: (flow: F) => number): boolean {
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
      } else if (list === this.#sparse && turn.flow.nextBytes > SPARSE_BYTES) {
        list.shift()
        this.#bulk.push(turn)
      } else {
        const bytes = send(turn.flow)
        turn.deficit -= bytes
        return bytes > 0
      }
    }
  }
}
