// Keeps the kernel's service maps equal to the cluster: observe nothing but notices of loss, plan the difference to what
// was applied, apply it as one transaction per family. Whatever goes wrong ends in one thing: the whole table anew.

import { networkInterfaces, type NetworkInterfaceInfo } from 'node:os'
import { contains, covering, FAMILIES, parseCidr, type Family } from '../lib/cidr.ts'
import type { Log } from '../lib/log.ts'
import { run } from '../lib/net/exec.ts'
import { openNftMonitor, type NftMonitor } from '../lib/net/nft-monitor.ts'
import { createUpkeep } from '../lib/net/upkeep.ts'
import { openNft } from '../lib/net/nft.ts'
import { openNftSocket } from '../lib/net/nft-socket.ts'
import { presentIn } from '../lib/net/nft-objects.ts'
import { pause } from '../lib/net/lifetime.ts'
import { NFT_TABLE_AGENT } from '../lib/owned.ts'
import { changesBetween, EMPTY, type SortedList } from '../lib/sorted-list.ts'
import { byService, type Balance, type ServiceFrontends } from './balance.ts'
import type { Cluster } from './cluster.ts'
import { createFlowCleaner } from './conntrack-loop.ts'
import { udpKeys, udpTargets } from './conntrack.ts'
import { applyChanges } from './nft-apply-loop.ts'
import { fillTable, renderEmpty } from './nft-load-loop.ts'
import { listTable, noticeOf, readTable, type Held } from './nft-observed.ts'
import { planChanges, type ElementChange } from './nft-changes.ts'
import { markerOf, renderTable } from './nft-text.ts'
import { rulesetOf, type Ruleset } from './nft.ts'
import { runTakeover } from './takeover-loop.ts'
import type { Takeover } from './takeover.ts'
import type { Here } from './topology.ts'

export type ServiceSnapshot = { readonly cluster: Cluster; readonly here: Here; readonly balance: Balance }
export type NftOptions = {
  /** undefined before the cluster is known: then the rules of a predecessor stay as they are. */
  readonly snapshot: () => ServiceSnapshot | undefined
  /** Prefixes of this node's addresses that have NodePorts; none for its first InternalIP of each family. */
  readonly nodePortAddresses?: readonly string[]
  /** Prefixes of ClusterIPs, whose addresses without a service are dropped; none where they are not known. */
  readonly serviceCidrs?: () => readonly string[]
  /** What the agent's DNS answers for now; empty while it does not answer. */
  readonly takeovers: () => readonly Takeover[]
  readonly onSync?: (sync: { readonly durationMs: number }) => void
  /** One that others follow too; without it there is one for these rules alone. */
  readonly monitor?: NftMonitor
  readonly log: Log
}
export type NftLoop = {
  /** The snapshot changed. */
  readonly trigger: () => void
  /** What the DNS answers for changed: it is taken over now and not within a second. */
  readonly retake: () => void
  /** Resolves once everything triggered so far is in the kernel. */
  readonly idle: () => Promise<void>
  /** False while the kernel does not take what is wanted. */
  readonly loaded: () => boolean
  /** Why the kernel does not have what is wanted. */
  readonly problems: () => readonly string[]
  /** This node's addresses that have NodePorts, as they were last applied. */
  readonly nodeAddresses: () => readonly string[]
  /** Resolves after the signal aborted; the rules stay, the takeover is handed back. */
  readonly done: Promise<void>
}

/** Notices of rules that went are judged by what else their transaction removed; it arrives within this. */
const NOTICE_SETTLE_MS = 100
/** Somebody who flushes in a loop must not make us load in a loop. */
const REBUILD_MIN_INTERVAL_MS = 300
/** A monitor that does not start keeps nobody's services waiting. */
const MONITOR_WAIT_MS = 1_000
/** This node's addresses are read with every other renewal of the takeover: the more pods there are, the longer that takes. */
const ADDRESSES_MS = 1_800
/** Notices of what we took out ourselves arrive within this. */
const REMOVED_MS = 10_000

export function runNft(options: NftOptions, signal: AbortSignal): NftLoop {
  const { log } = options
  // Outlives the signal by the last transaction, which hands the takeover back.
  const closing = new AbortController()
  const nft = openNft(closing.signal, log)
  const elements = openNftSocket()
  const held = new Map<Family, Held>()
  const removed = new Removed()
  const watching = Promise.withResolvers<void>()
  let serial = Date.now()
  const observed = new Set<Family>()
  let own: OwnAddresses = { sources: [], nodeAddresses: [] }
  let addressesMs = -Infinity
  let services: SortedList<ServiceFrontends> = EMPTY
  let first = true
  let problem: string | undefined
  let lastRebuild = -REBUILD_MIN_INTERVAL_MS
  const ownOf = ownAddressesReader(options.nodePortAddresses ?? [])

  const sync = async (): Promise<void> => {
    // What is there is read once, by who already hears of what is removed.
    if (observed.size === 0) await Promise.race([watching.promise, pause(MONITOR_WAIT_MS, signal)])
    const snapshot = options.snapshot()
    if (snapshot === undefined) return
    const startedAt = performance.now()
    own = ownOf(snapshot)
    const input = { ...snapshot, ...own, serviceCidrs: options.serviceCidrs?.() ?? [] }
    const results = await Promise.allSettled(FAMILIES.map((family) => syncFamily(rulesetOf(input, family))))
    for (const result of results) if (result.status === 'rejected') throw result.reason
    problem = undefined
    options.onSync?.({ durationMs: performance.now() - startedAt })
    cleanFlows(snapshot.balance.services)
    // Where the cluster DNS is was not known before.
    if (first) takeover.retake()
    first = false
  }

  /** What is held is noted before it is applied: notices of what we replace must not look like a loss. */
  const syncFamily = async (wanted: Ruleset): Promise<void> => {
    const { family } = wanted
    if (!observed.has(family)) {
      const left = (await hasTable(family)) ? await observe(wanted) : undefined
      observed.add(family)
      if (left !== undefined) held.set(family, left)
    }
    const before = held.get(family)
    const changes = before && planChanges(before.loaded, wanted)
    try {
      if (before !== undefined && changes !== undefined) {
        held.set(family, { loaded: changes.loaded, marker: before.marker })
        removed.note(family, [...changes.changed, ...changes.left])
        return await applyChanges({ nft, elements }, family, changes)
      }
      const early = lastRebuild + REBUILD_MIN_INTERVAL_MS - performance.now()
      if (early > 0) await pause(early, signal)
      const marker = markerOf(wanted, ++serial)
      const replaces = await hasTable(family)
      const { script, loaded } = (replaces ? renderTable : renderEmpty)(wanted, marker)
      held.set(family, { loaded, marker })
      await nft.apply([script])
      if (!replaces) await fillTable(elements, wanted)
      lastRebuild = performance.now()
    } catch (error) {
      held.delete(family)
      throw error
    }
  }

  /** Flows to what is not there any more are stale as well. */
  const cleanFlows = (now: SortedList<ServiceFrontends>): void => {
    const touched = [...changesBetween(services, now, byService)]
    const gone = touched.flatMap(([had]) => (had === undefined ? [] : udpKeys(had, own.nodeAddresses)))
    services = now
    if (first || touched.some(([had, now]) => hasUdp(had) || hasUdp(now))) flows.check(gone)
  }

  const rules = createUpkeep(
    {
      pass: sync,
      onError: (err, failures) => {
        problem = `services are not in the kernel: ${(err as Error).message}`
        log.warn({ err, failures }, 'cannot apply services; the whole table is loaded anew')
      },
      coalesceMs: 0,
    },
    signal,
  )
  const flows = createFlowCleaner(
    {
      targets: () => udpTargets(services, own.nodeAddresses, options.takeovers()),
      log,
    },
    signal,
  )
  const rebuild = (reason: string): void => {
    log.warn({ reason }, 'service rules were removed by somebody else and are restored')
    held.clear()
    rules.trigger()
  }

  let looking = false
  /** One look at a time: who empties a map removes thousands of elements. */
  const look = (command: string): void => {
    if (looking) return
    looking = true
    void nft
      .apply([command])
      .catch(() => rebuild(command))
      .finally(() => (looking = false))
  }

  let suspicion: NodeJS.Timeout | undefined
  const { monitor = openNftMonitor(log, signal) } = options
  monitor.follow({
    onLine: (line) => {
      const notice = noticeOf(line, [...held.values()], removed.has)
      switch (notice?.kind) {
        case 'lost':
          return rebuild(line)
        case 'replaced':
          return clearTimeout(suspicion)
        case 'rules-gone':
          clearTimeout(suspicion)
          suspicion = setTimeout(() => rebuild(line), NOTICE_SETTLE_MS)
          return
        case 'doubtful':
          return look(notice.command)
        case undefined:
          return
      }
    },
    onStart: () => {
      watching.resolve()
      if (observed.size === 0) return
      // What happened before it watched is not known: what is there is read once more.
      observed.clear()
      held.clear()
      rules.trigger()
    },
  })

  const takeover = runTakeover(
    {
      takeovers: options.takeovers,
      onBegan: () => flows.check([]),
      onTick: () => {
        const snapshot = options.snapshot()
        if (snapshot === undefined || performance.now() - addressesMs < ADDRESSES_MS) return
        addressesMs = performance.now()
        const now = ownOf(snapshot)
        if (now !== own && JSON.stringify(now) !== JSON.stringify(own)) rules.trigger()
      },
      log,
    },
    signal,
  )

  const done = Promise.all([monitor.done, takeover.done]).then(async () => {
    clearTimeout(suspicion)
    await rules.idle()
    await flows.idle()
    closing.abort()
    elements.close()
  })
  rules.trigger()
  return {
    trigger: rules.trigger,
    retake: takeover.retake,
    idle: rules.idle,
    loaded: () => problem === undefined,
    problems: () => [problem, flows.problem(), ...takeover.problems()].filter((text) => text !== undefined),
    nodeAddresses: () => own.nodeAddresses,
    done,
  }
}

/** Cheap. */
const hasTable = async (family: Family): Promise<boolean> =>
  (await presentIn([{ family, table: NFT_TABLE_AGENT }])).length > 0

/** What a predecessor left, if its rules are ours: then nothing needs to be replaced under the packets of new connections. */
async function observe(wanted: Ruleset): Promise<Held | undefined> {
  try {
    return readTable(await run('nft', listTable(wanted.family)), wanted)
  } catch {
    return undefined
  }
}

type OwnAddresses = {
  /** Among the addresses of pods, the lowest of each family; others are not routed between pools. */
  readonly sources: readonly { readonly family: Family; readonly address: string }[]
  readonly nodeAddresses: readonly string[]
}

/** What was made of the same pools and the same interfaces is the same value. */
function ownAddressesReader(nodePortPrefixes: readonly string[]): (snapshot: ServiceSnapshot) => OwnAddresses {
  let known: { readonly from: readonly unknown[]; readonly own: OwnAddresses } | undefined
  return ({ cluster: { pools }, here }) => {
    const local = Object.values(networkInterfaces()).flatMap((addresses) => addresses ?? [])
    const from = [pools, here, local.map(({ address }) => address).join()]
    if (known === undefined || !from.every((value, i) => value === known!.from[i]))
      known = { from, own: ownAddresses(pools, here, local, nodePortPrefixes) }
    return known.own
  }
}

function ownAddresses(
  pools: Cluster['pools'],
  { node, addresses }: Here,
  local: readonly NetworkInterfaceInfo[],
  nodePortPrefixes: readonly string[],
): OwnAddresses {
  const cidrs = pools
    .flatMap(({ nodes }) => nodes.filter(({ name }) => name === node))
    .flatMap(({ podCidrs }) => podCidrs.flatMap((text) => parseCidr(text) ?? []))
  const sources = FAMILIES.flatMap((family) => {
    const inside = local
      .map(({ address }) => address)
      .filter((address) => cidrs.some((cidr) => cidr.family === family && contains(cidr, address)))
    const [address] = inside.sort((a, b) => a.length - b.length || (a < b ? -1 : 1))
    return address === undefined ? [] : [{ family, address }]
  })
  const isWanted = covering(nodePortPrefixes)
  const outer = local.filter(({ internal, address }) => !internal && !address.startsWith('fe80:'))
  return {
    sources,
    nodeAddresses:
      nodePortPrefixes.length > 0
        ? [...new Set(outer.map(({ address }) => address).filter(isWanted))].sort()
        : FAMILIES.flatMap((family) => addresses.find((address) => address.includes(':') === (family === 6)) ?? []),
  }
}

const hasUdp = (service: ServiceFrontends | undefined): boolean =>
  service?.frontends.some(({ protocol }) => protocol === 'UDP') === true

/** Keys of elements that we took out lately. */
class Removed {
  readonly #atMs = new Map<string, number>()

  note(family: Family, changes: readonly ElementChange[]): void {
    const nowMs = performance.now()
    // In the order in which they were noted.
    for (const [key, atMs] of this.#atMs) {
      if (atMs > nowMs - REMOVED_MS) break
      this.#atMs.delete(key)
    }
    for (const { object, removed } of changes)
      for (const element of removed) {
        const key = `${family} ${object} ${element}`
        this.#atMs.delete(key)
        this.#atMs.set(key, nowMs)
      }
  }

  has = (family: Family, object: string, element: string): boolean => this.#atMs.has(`${family} ${object} ${element}`)
}
