// Which nodes of a pool are alive, from what their agents say on the LAN once a second. Silence is asked about before it is
// believed: an agent that runs answers, and where none does the kernel of a node that is well refuses the question, since
// an agent that was killed or is being upgraded takes no pod with it. What answers neither way is silent. Pure.

/** How often an agent says that it runs. */
export const PRESENCE_MS = 1_000
/** Silence after which a node is asked, and how often from then on; once it is known to be silent, less often. */
const ASK_AFTER_MS = 1_500
const ASK_EVERY_MS = 250
const ASK_SILENT_EVERY_MS = 1_000
/** Two words missed and four questions left unanswered. */
const SILENT_AFTER_MS = 2_500
/** Nodes that are asked at a time. */
const MAX_ASKED = 64
/** A step that comes so much later than the last means that we did not run; what was said in that time is yet to be read. */
const STALL_MS = 500
/** So soon it is read. */
const CATCH_UP_MS = 300

type Member = { signMs: number; askedMs: number }

export class Liveness {
  readonly #members = new Map<string, Member>()
  #steppedMs: number | undefined

  /** The node's agent spoke, or its kernel refused a question. */
  sign(node: string, nowMs: number): void {
    const member = this.#members.get(node)
    if (member === undefined) this.#members.set(node, { signMs: nowMs, askedMs: -Infinity })
    else member.signMs = nowMs
  }

  /** @param members others are forgotten; one that never gave a sign is not known, and not silent. @returns whom to ask. */
  step(members: ReadonlySet<string>, nowMs: number): readonly string[] {
    const sleptMs = nowMs - (this.#steppedMs ?? nowMs)
    this.#steppedMs = nowMs
    const due: string[] = []
    for (const [node, member] of this.#members) {
      if (!members.has(node)) {
        this.#members.delete(node)
        continue
      }
      if (sleptMs > STALL_MS) member.signMs += sleptMs + CATCH_UP_MS
      const silentMs = nowMs - member.signMs
      const everyMs = silentMs < SILENT_AFTER_MS ? ASK_EVERY_MS : ASK_SILENT_EVERY_MS
      if (silentMs < ASK_AFTER_MS || nowMs - member.askedMs < everyMs || due.length >= MAX_ASKED) continue
      member.askedMs = nowMs
      due.push(node)
    }
    return due
  }

  /** By name. */
  silent(nowMs: number): readonly string[] {
    return [...this.#members]
      .flatMap(([node, { signMs }]) => (nowMs - signMs >= SILENT_AFTER_MS ? [node] : []))
      .toSorted()
  }
}
