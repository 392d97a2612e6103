// Keeps the cluster DNS's ClusterIPs pointed at the agent for as long as the agent lives: by tables that go with it, whose
// elements lapse, and are renewed every second, by us or by nobody.

import { FAMILIES, type Family } from '../lib/cidr.ts'
import type { Log } from '../lib/log.ts'
import { NetfilterError } from '../lib/net/netfilter.ts'
import { tick } from '../lib/net/lifetime.ts'
import { encodeBatch } from '../lib/net/nft-batch.ts'
import { openNftSocket, type NftSocket } from '../lib/net/nft-socket.ts'
import { replaceTable } from '../lib/net/nft-table.ts'
import { NFT_TABLE_DNS } from '../lib/owned.ts'
import { ipOf } from './nft.ts'
import { beginTakeover, endTakeover, renewTakeover, takeoverTable, TIMEOUT_SECONDS, type Takeover } from './takeover.ts'

export type TakeoverOptions = {
  /** What the agent's DNS answers for now; empty while it does not answer. */
  readonly takeovers: () => readonly Takeover[]
  /** Something is answered by us that was not before. */
  readonly onBegan: () => void
  /** Called before each renewal. */
  readonly onTick: () => void
  readonly log: Log
}
export type TakeoverLoop = {
  /** Renews now and not within a second. */
  readonly retake: () => void
  /** Why the cluster DNS answers for itself, or why names would fail for a while if we died. */
  readonly problems: () => readonly string[]
  /** Resolves after the signal aborted and the addresses are handed back. */
  readonly done: Promise<void>
}

const RENEW_MS = 1_000

export function runTakeover({ takeovers, onBegan, onTick, log }: TakeoverOptions, signal: AbortSignal): TakeoverLoop {
  // The tables are this socket's.
  const kernel = openNftSocket()
  const taken = new Map<Family, Taken>()
  const problems = new Map<Family, string>()
  let asked = false
  let wake = (): void => undefined
  const wait = async (): Promise<void> => {
    if (!asked) await Promise.race([tick(RENEW_MS, signal), new Promise<void>((resolve) => (wake = resolve))])
    asked = false
  }

  const renew = async (family: Family, now: readonly Takeover[]): Promise<void> => {
    const before = taken.get(family) ?? (now.length === 0 ? undefined : await makeTable(kernel, family))
    if (before === undefined) return
    taken.set(family, before)
    if (sameAll(before.takeovers, now)) {
      if (before.renewal !== undefined) await kernel.apply(before.renewal)
      return
    }
    const dropped = before.takeovers.filter((takeover) => !now.some((other) => same(other, takeover)))
    const changes = [...now.flatMap(beginTakeover), ...dropped.flatMap(endTakeover), ...now.flatMap(renewTakeover)]
    await kernel.apply(encodeBatch(changes))
    const renewal = now.length === 0 ? undefined : encodeBatch(now.flatMap(renewTakeover))
    taken.set(family, { ...before, takeovers: now, renewal })
    if (now.length > 0) onBegan()
  }

  const run = async (): Promise<void> => {
    for (; !signal.aborted; await wait()) {
      onTick()
      const wanted = takeovers()
      for (const family of FAMILIES)
        try {
          await renew(
            family,
            wanted.filter((takeover) => takeover.family === family),
          )
          problems.delete(family)
        } catch (err) {
          if (!problems.has(family)) log.warn({ err }, 'cannot take over the cluster DNS')
          problems.set(family, `the cluster DNS is not taken over: ${(err as Error).message}`)
          taken.delete(family)
        }
    }
    // Before the DNS is gone, so that clients find the cluster's own.
    for (const { takeovers } of taken.values())
      if (takeovers.length > 0) await kernel.apply(encodeBatch(takeovers.flatMap(endTakeover))).catch(() => undefined)
  }
  return {
    retake: () => {
      asked = true
      wake()
    },
    problems: () => [...problems.values(), ...[...taken.values()].flatMap(({ outlives }) => outlives ?? [])],
    done: run().finally(kernel.close),
  }
}

/** Of a family. */
type Taken = {
  readonly takeovers: readonly Takeover[]
  readonly renewal?: Buffer | undefined
  /** Why the table does not end with us. */
  readonly outlives?: string
}

/** @throws Error while the table is another agent's, such as one that ends soon. */
async function makeTable(kernel: NftSocket, family: Family): Promise<Taken> {
  const make = (apart: boolean) => kernel.apply(encodeBatch(replaceTable(takeoverTable(family, apart))))
  try {
    await make(true)
    return { takeovers: [] }
  } catch (error) {
    if (!(error instanceof NetfilterError)) throw error
    const { errno } = error
    if (errno === 'EPERM') {
      const table = `${ipOf(family)} ${NFT_TABLE_DNS}`
      throw new Error(`another agent holds table ${table} and must end first; nft list table ${table} names it`, {
        cause: error,
      })
    }
    await make(false)
    const lapse = `names fail for ${TIMEOUT_SECONDS} s where the agent dies`
    return { takeovers: [], outlives: `${lapse}: this kernel cannot end the takeover with it (${errno})` }
  }
}

const sameAll = (a: readonly Takeover[], b: readonly Takeover[]) =>
  a.length === b.length && a.every((takeover, i) => same(takeover, b[i]!))
const same = (a: Takeover, b: Takeover) => a.clusterIp === b.clusterIp && a.to === b.to
