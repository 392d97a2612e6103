// Keeps the nft table that goes with the routes loaded, back within a second after somebody flushed it, and looks whether
// others' forward rules let pass what pools say to each other.

import type { Log } from '../lib/log.ts'
import { ExecError, run } from '../lib/net/exec.ts'
import { tick } from '../lib/net/lifetime.ts'
import { openNftCounters } from '../lib/net/nft-counters.ts'
import type { NftMonitor } from '../lib/net/nft-monitor.ts'
import { createUpkeep } from '../lib/net/upkeep.ts'
import { NFT_TABLE_ROUTES } from '../lib/owned.ts'
import {
  dropProblem,
  fateOf,
  isComplete,
  readDroppers,
  routeTable,
  type Forwarded,
  type RouteRules,
} from './route-rules.ts'

export type RouteRulesLoop = {
  /** The rules may be others now. */
  readonly trigger: () => void
  readonly problems: () => readonly string[]
  /** Resolves after the signal aborted; the rules stay. */
  readonly done: Promise<void>
}

const LOOK_MS = 10_000
/** So many looks, where no chain is known to drop. */
const DROPS_CERTAIN = 3
const NOTHING: Forwarded = { entered: 0, left: 0 }

/** @param options.rules undefined before anything is known: then the rules of a predecessor stay. */
export function runRouteRules(
  options: { readonly rules: () => RouteRules | undefined; readonly monitor: NftMonitor; readonly log: Log },
  signal: AbortSignal,
): RouteRulesLoop {
  const { log } = options
  let loaded: string | undefined
  let counted = NOTHING
  let failure: string | undefined
  let dropped: string | undefined
  /** Looks in a row in which nothing passed that began. */
  let drops = 0

  const load = createUpkeep(
    {
      pass: async () => {
        const rules = options.rules()
        if (rules === undefined) return
        const wanted = routeTable(rules)
        const complete = isComplete(await list('table', ['inet', NFT_TABLE_ROUTES]), rules)
        if (complete && loaded === wanted) return
        if (!complete && loaded === wanted)
          log.warn({ table: NFT_TABLE_ROUTES }, 'somebody removed our nft rules; loading them again')
        await run('nft', ['-f', '-'], { input: wanted })
        loaded = wanted
        counted = NOTHING
        failure = undefined
      },
      onError: (err, failures) => {
        failure = `rules for packets between pools are not in the kernel: ${(err as Error).message}`
        log.warn({ err, failures }, 'cannot load the rules for packets between pools')
      },
    },
    signal,
  )
  const look = async (): Promise<void> => {
    const rules = options.rules()
    if (loaded === undefined || rules === undefined) return
    const now = { entered: await counters.packets('entered'), left: await counters.packets('left') }
    const fate = fateOf(counted, now)
    counted = now
    if (fate === 'passed') {
      dropped = undefined
      drops = 0
    }
    if (fate !== 'dropped') return
    drops++
    const droppers = readDroppers(await list('chains', [], '-j'))
    // A policy of the cluster may refuse the few connections of one look.
    if (droppers.length === 0 && drops < DROPS_CERTAIN) return
    const problem = dropProblem(droppers, rules.own)
    if (dropped === undefined) log.warn({ problem }, 'packets between pools are dropped on this node')
    dropped = problem
  }
  const counters = openNftCounters(NFT_TABLE_ROUTES)
  const watch = async (): Promise<void> => {
    while (!signal.aborted) {
      await tick(LOOK_MS, signal)
      // Somebody flushed the table: it is loaded again.
      if (!signal.aborted)
        await look().catch((err: unknown) => log.debug({ err }, 'cannot count packets between pools'))
    }
    counters.close()
  }
  const onLine = (line: string): void => {
    if (line.includes(NFT_TABLE_ROUTES)) load.trigger()
  }
  options.monitor.follow({ onLine, onStart: load.trigger })
  load.trigger()
  return {
    trigger: load.trigger,
    problems: () => [failure ?? [], dropped ?? []].flat(),
    done: Promise.all([options.monitor.done, watch()]).then(() => load.idle()),
  }
}

/** @returns '' where there is no such thing. */
async function list(what: string, words: readonly string[], ...flags: readonly string[]): Promise<string> {
  try {
    return await run('nft', [...flags, 'list', what, ...words])
  } catch (error) {
    if (error instanceof ExecError && error.stderr.includes('No such file or directory')) return ''
    throw error
  }
}
