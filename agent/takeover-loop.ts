// Keeps the cluster DNS's ClusterIPs pointed at the agent for as long as the agent lives: elements that lapse are renewed
// every second, by us or by nobody.

import type { Family } from '../lib/cidr.ts'
import type { Log } from '../lib/log.ts'
import { pause } from '../lib/net/lifetime.ts'
import type { NftSession } from '../lib/net/nft.ts'
import { endTakeover, renewTakeover, type Takeover } from './takeover.ts'

export type TakeoverOptions = {
  readonly nft: NftSession
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
  { nft, takeovers, loaded, onBegan, onTick, log }: TakeoverOptions,
  signal: AbortSignal,
): TakeoverLoop {
  let asked = false
  let wake = (): void => undefined
  const wait = async (): Promise<void> => {
    if (!asked) await Promise.race([pause(RENEW_MS, signal), new Promise<void>((resolve) => (wake = resolve))])
    asked = false
  }

  const run = async (): Promise<void> => {
    let taken: readonly Takeover[] = []
    for (; !signal.aborted; await wait()) {
      onTick()
      const wanted = takeovers().filter(({ family }) => loaded(family))
      const dropped = taken.filter(
        (takeover) => loaded(takeover.family) && !wanted.some((other) => same(other, takeover)),
      )
      const began = wanted.some((takeover) => !taken.some((other) => same(other, takeover)))
      try {
        await nft.apply([...dropped.flatMap(endTakeover), ...wanted.flatMap(renewTakeover)])
        taken = wanted
        if (began) onBegan()
      } catch (err) {
        // Whatever is wrong with the table is noticed and logged where it is loaded.
        log.debug({ err }, 'cannot renew the takeover of the cluster DNS')
      }
    }
    // Before the DNS is gone, so that clients find the cluster's own.
    await nft.apply(taken.flatMap(endTakeover)).catch(() => undefined)
  }
  return {
    retake: () => {
      asked = true
      wake()
    },
    done: run(),
  }
}

const same = (a: Takeover, b: Takeover) => a.clusterIp === b.clusterIp && a.to === b.to
