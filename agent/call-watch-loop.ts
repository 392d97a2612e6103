// Keeps the nft table of the watch for unanswered calls loaded, and reads it.

import type { Log } from '../lib/log.ts'
import type { Pool } from '../lib/k8s/pools.ts'
import { run } from '../lib/net/exec.ts'
import { tick } from '../lib/net/lifetime.ts'
import { openNftSets, type Ages } from '../lib/net/nft-set.ts'
import { createUpkeep } from '../lib/net/upkeep.ts'
import { NFT_TABLE_WATCH } from '../lib/owned.ts'
import {
  NO_WATCH_TABLE,
  setOf,
  Unanswered,
  WATCH_FAMILIES,
  WATCH_MS,
  watchedPrefixes,
  watchTable,
} from './call-watch.ts'

export type CallWatch = {
  /** The pools may be others now. */
  readonly trigger: () => void
  readonly problems: () => readonly string[]
  /** Resolves after the signal aborted; the table is gone then, since nobody reads it. */
  readonly done: Promise<void>
}

const LOOK_MS = 500
/** While no endpoint is called. */
const IDLE_LOOK_MS = 1_000

export function runCallWatch(
  options: {
    readonly pools: () => readonly Pool[] | undefined
    /** @param keys `address port`. */
    readonly onUnanswered: (keys: readonly string[]) => void
    readonly log: Log
  },
  signal: AbortSignal,
): CallWatch {
  const { log } = options
  let pools: readonly Pool[] | undefined
  let loaded: string | undefined
  let failure: string | undefined
  const load = createUpkeep(
    {
      pass: async () => {
        const now = options.pools()
        if (now === undefined || (now === pools && loaded !== undefined)) return
        pools = now
        const wanted = watchTable(watchedPrefixes(now))
        if (wanted === loaded) return
        await run('nft', ['-f', '-'], { input: wanted })
        loaded = wanted
        failure = undefined
      },
      onError: (err, failures) => {
        loaded = undefined
        failure = `endpoints that stop answering are not noticed: ${(err as Error).message}`
        if (failures === 1) log.warn({ err }, 'cannot load the watch for unanswered calls')
      },
    },
    signal,
  )

  const watch = async (): Promise<void> => {
    const sets = openNftSets(NFT_TABLE_WATCH, WATCH_MS)
    const unanswered = { 4: new Unanswered(), 6: new Unanswered() }
    const look = async (): Promise<boolean> => {
      let any = false
      const late: string[] = []
      for (const { family } of WATCH_FAMILIES) {
        const called = await sets.ages(setOf('called', family), family)
        if (called === undefined) {
          log.warn({ table: NFT_TABLE_WATCH }, 'somebody removed our nft rules; loading them again')
          loaded = undefined
          load.trigger()
          return false
        }
        any ||= called.size > 0
        const none: Ages = new Map()
        const answered = called.size === 0 ? none : ((await sets.ages(setOf('answered', family), family)) ?? none)
        late.push(...unanswered[family].look(called, answered, performance.now()))
      }
      if (late.length > 0 && !signal.aborted) options.onUnanswered(late)
      return any
    }
    while (!signal.aborted) {
      let busy = false
      if (loaded !== undefined)
        busy = await look().catch((err: unknown) => {
          log.debug({ err }, 'the kernel did not say which calls are unanswered')
          return true
        })
      await tick(busy ? LOOK_MS : IDLE_LOOK_MS, signal)
    }
    sets.close()
  }
  load.trigger()
  return {
    trigger: load.trigger,
    problems: () => [failure ?? []].flat(),
    done: watch()
      .then(() => load.idle())
      .then(() => run('nft', ['-f', '-'], { input: NO_WATCH_TABLE }))
      .then(
        () => undefined,
        (err: unknown) => log.debug({ err }, 'the watch for unanswered calls stays in nft'),
      ),
  }
}
