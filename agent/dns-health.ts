// Which of the resolvers to ask: those that answer, in the order of the configuration. One that failed twice in a row is
// down until it answers a check; where all are down, the checks may be what is wrong, so one is tried by chance.

import { formatSocketAddress, type SocketAddress } from '../lib/address.ts'

const FAILURES_MAX = 2

export class DnsHealth {
  readonly #failures = new Map<string, number>()

  /** @returns whether it was well before: from now on it is to be checked. */
  failed(server: SocketAddress): boolean {
    const key = formatSocketAddress(server)
    const failures = this.#failures.get(key) ?? 0
    this.#failures.set(key, failures + 1)
    return failures === 0
  }

  answered(server: SocketAddress): void {
    this.#failures.delete(formatSocketAddress(server))
  }

  /** True from its first failure until it answers. */
  isSuspect(server: SocketAddress): boolean {
    return this.#failures.has(formatSocketAddress(server))
  }

  isDown(server: SocketAddress): boolean {
    return (this.#failures.get(formatSocketAddress(server)) ?? 0) >= FAILURES_MAX
  }

  /** @param random in [0, 1). @returns whom to ask, the first first; empty only where there is nobody. */
  order(servers: readonly SocketAddress[], random: number): readonly SocketAddress[] {
    const well = servers.filter((server) => !this.isDown(server))
    return well.length > 0 ? well : servers.slice(Math.floor(random * servers.length)).slice(0, 1)
  }
}
