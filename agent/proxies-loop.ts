// Looks for other service proxies on this node every few seconds, by questions that cost the same however much they hold.

import { existsSync, readFileSync } from 'node:fs'
import { join } from 'node:path'
import { attachedNames } from '../lib/bpf/attached.ts'
import { cgroupMount } from '../lib/bpf/hook-point.ts'
import { FAMILIES } from '../lib/cidr.ts'
import type { Log } from '../lib/log.ts'
import { tick } from '../lib/net/lifetime.ts'
import { presentIn } from '../lib/net/nft-objects.ts'
import { legacyChains } from '../lib/net/xtables.ts'
import {
  CILIUM_DEVICE,
  EDGEMESH_CHAIN,
  KUBE_PROXY_CHAIN,
  KUBE_PROXY_TABLE,
  proxiesOf,
  type OtherProxies,
} from './proxies.ts'

export type ProxiesOptions = {
  /** Folder of the cgroup2 group whose processes are served; undefined for the whole machine. */
  readonly group: string | undefined
  /** What is here is not what it was at the last look. */
  readonly onChange: () => void
  readonly log: Log
}
export type ProxiesLoop = {
  /** As of the last look. */
  readonly here: () => OtherProxies
  readonly done: Promise<void>
}

const LOOK_MS = 5_000
/** iptables' older tables are copied whole, so they are looked at in every so many looks. */
const LEGACY_LOOKS = 12
const CHAINS = [KUBE_PROXY_CHAIN, EDGEMESH_CHAIN] as const
const OBJECTS = FAMILIES.flatMap((family) => [
  { family, table: KUBE_PROXY_TABLE },
  ...CHAINS.map((chain) => ({ family, table: 'nat', chain })),
])
/** Where Cilium pins its maps of services, by version. */
const CILIUM_MAPS = ['cilium_lb4_services_v2', 'cilium_lb6_services_v2', 'cilium_lb4_services', 'cilium_lb6_services']
const CILIUM_FOLDER = '/sys/fs/bpf/tc/globals'

/** Resolves after the first look. */
export async function watchProxies(
  { group, onChange, log }: ProxiesOptions,
  signal: AbortSignal,
): Promise<ProxiesLoop> {
  let here: OtherProxies = { names: [] }
  let legacy: readonly string[] = []
  let looks = 0

  const look = async (): Promise<OtherProxies> => {
    if (looks++ % LEGACY_LOOKS === 0) legacy = FAMILIES.flatMap((family) => legacyChains(family, 'nat', CHAINS))
    const present = await presentIn(OBJECTS)
    const devices = deviceNames()
    // Only where there may be one, since to ask costs memory on a node without BPF.
    const cilium = devices.has(CILIUM_DEVICE)
    return proxiesOf({
      tables: new Set(present.map(({ table }) => table)),
      chains: new Set([...present.flatMap((object) => ('chain' in object ? [object.chain] : [])), ...legacy]),
      devices,
      ciliumMaps: cilium && CILIUM_MAPS.some((name) => existsSync(join(CILIUM_FOLDER, name))),
      programs: cilium ? programNames(group) : [],
    })
  }
  const update = async (): Promise<void> => {
    const before = here
    try {
      here = await look()
    } catch (err) {
      return log.debug({ err }, 'cannot look for other service proxies')
    }
    if (JSON.stringify(here) === JSON.stringify(before)) return
    log.info({ proxies: here.names }, 'other service proxies on this node')
    onChange()
  }
  const watch = async (): Promise<void> => {
    while (!signal.aborted) {
      await tick(LOOK_MS, signal)
      if (!signal.aborted) await update()
    }
  }

  await update()
  return { here: () => here, done: watch() }
}

/** Up or down, as kube-ipvs0 is. */
function deviceNames(): ReadonlySet<string> {
  const lines = readFileSync('/proc/self/net/dev', 'utf8').split('\n').slice(2)
  return new Set(lines.map((line) => line.trim().split(':')[0]!))
}

function programNames(group: string | undefined): readonly string[] {
  try {
    const folder = group ?? cgroupMount()
    return (['connect4', 'connect6'] as const).flatMap((hook) => attachedNames(folder, hook))
  } catch {
    return []
  }
}
