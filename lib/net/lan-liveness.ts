// Which nodes of a pool are alive, for a daemon on their LAN: it gives the signs of life that it hears, and who falls silent
// is asked at all of its addresses.

import type { Pool } from '../k8s/pools.ts'
import { lanAddressesOf } from '../lan-addresses.ts'
import { Liveness } from '../liveness.ts'
import type { LanChannel } from './lan-channel.ts'

export type LanLivenessOptions = {
  readonly lan: Pick<LanChannel, 'ask'>
  /** Of agents. */
  readonly port: number
  /** Another datagram with each call, since what was heard before is not heard again; undefined without a key. */
  readonly question: (pool: Pool) => Buffer | undefined
}

export class LanLiveness {
  readonly #liveness = new Liveness()
  readonly #options: LanLivenessOptions

  constructor(options: LanLivenessOptions) {
    this.#options = options
  }

  /** The node's agent spoke. */
  sign(node: string): void {
    this.#liveness.sign(node, performance.now())
  }

  /** @param watched nodes of the pool; others are forgotten. */
  step(pool: Pool, watched: ReadonlySet<string>): void {
    const due = this.#liveness.step(watched, performance.now())
    if (due.length === 0) return
    const { lan, port, question } = this.#options
    for (const node of pool.nodes)
      if (due.includes(node.name))
        for (const address of lanAddressesOf(node)) {
          const datagram = question(pool)
          // Where no agent runs, the kernel of a node that is well refuses it.
          if (datagram !== undefined) lan.ask(datagram, port, address, () => this.sign(node.name))
        }
  }

  silent(): readonly string[] {
    return this.#liveness.silent(performance.now())
  }
}
