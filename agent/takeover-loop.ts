// Keeps the cluster DNS's ClusterIPs pointed at the agent for as long as the agent lives: elements that lapse are renewed
// every second, by us or by nobody.

import { FAMILIES, type Family } from '../lib/cidr.ts'
import type { Log } from '../lib/log.ts'
import { tick } from '../lib/net/lifetime.ts'
import { encodeBatch } from '../lib/net/nft-batch.ts'
import type { NftElements } from '../lib/net/nft-elements.ts'
import { endTakeover, renewTakeover, type Takeover } from './takeover.ts'

export type TakeoverOptions = {
  readonly elements: NftElements
  /** What the agent's DNS answers for now; empty while it does not answer. */
  readonly takeovers: () => readonly Takeover[]
  /** Whether our table of the family is there. */
  readonly loaded: (family: Family) => boolean
  /** Something is answered by us that was not before. */
  readonly onBegan: () => void
  /** Called before each renewal. */
  readonly onTick: () => void
  readonly log: Log
}
export type TakeoverLoop = {
  /** Renews now and not within a second. */
  readonly retake: () => void
  /** Resolves after the signal aborted and the addresses are handed back. */
  readonly done: Promise<void>
}

const RENEW_MS = 1_000

export function runTakeover(
  { elements, takeovers, loaded, onBegan, onTick, log }: TakeoverOptions,
  signal: AbortSignal,
): TakeoverLoop {
  let asked = false
  let wake = (): void => undefined
  const wait = async (): Promise<void> => {
    if (!asked) await Promise.race([tick(RENEW_MS, signal), new Promise<void>((resolve) => (wake = resolve))])
    asked = false
  }

  const run = async (): Promise<void> => {
    const taken = new Map<Family, Taken>()
    for (; !signal.aborted; await wait()) {
      onTick()
      const wanted = takeovers()
      // Each by itself: where the table of one is gone, the other's goes on.
      for (const family of FAMILIES) {
        if (!loaded(family)) continue
        const before = taken.get(family) ?? NOTHING
        const now = wanted.filter((takeover) => takeover.family === family)
        try {
          if (sameAll(before.takeovers, now)) {
            if (before.renewal !== undefined) await elements.apply(before.renewal)
            continue
          }
          const dropped = before.takeovers.filter((takeover) => !now.some((other) => same(other, takeover)))
          await elements.apply(encodeBatch([...dropped.flatMap(endTakeover), ...now.flatMap(renewTakeover)]))
          taken.set(family, {
            takeovers: now,
            renewal: now.length === 0 ? undefined : encodeBatch(now.flatMap(renewTakeover)),
          })
          if (now.length > 0) onBegan()
        } catch (err) {
          // Whatever is wrong with the table is noticed and logged where it is loaded.
          log.debug({ err }, 'cannot renew the takeover of the cluster DNS')
        }
      }
    }
    // Before the DNS is gone, so that clients find the cluster's own.
    for (const { takeovers } of taken.values())
      if (takeovers.length > 0) await elements.apply(encodeBatch(takeovers.flatMap(endTakeover))).catch(() => undefined)
  }
  return {
    retake: () => {
      asked = true
      wake()
    },
    done: run(),
  }
}

/** Of a family. */
type Taken = { readonly takeovers: readonly Takeover[]; readonly renewal: Buffer | undefined }
const NOTHING: Taken = { takeovers: [], renewal: undefined }

const sameAll = (a: readonly Takeover[], b: readonly Takeover[]) =>
  a.length === b.length && a.every((takeover, i) => same(takeover, b[i]!))
const same = (a: Takeover, b: Takeover) => a.clusterIp === b.clusterIp && a.to === b.to
