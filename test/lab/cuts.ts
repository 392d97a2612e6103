// Cutting sites off and healing them. The core's nft sets are the only memory of it, so any process may do either.

import { UsageError } from '../../lib/net/lifetime.ts'
import { execAt, placeOf } from './enter.ts'
import { CORE } from './names.ts'
import { CUTS, setOfCut, type Cut } from './nat.ts'
import type { Topology } from './topology.ts'

/** What is cut now, by pool. */
export type CutsByPool = Readonly<Record<string, readonly Cut[]>>

export async function cut(topology: Topology, kind: Cut, pool: string): Promise<void> {
  await nft(topology, `add element inet cuts ${setOfCut(kind)} { "${uplinkOf(topology, pool)}" }\n`)
}

/** @param pool a site, or `all`. */
export async function heal(topology: Topology, pool: string): Promise<void> {
  const devices = pool === 'all' ? undefined : uplinkOf(topology, pool)
  // An element that is added first can be deleted whether or not it was there.
  const undo = (set: string) =>
    `add element inet cuts ${set} { "${devices}" }\ndelete element inet cuts ${set} { "${devices}" }\n`
  await nft(
    topology,
    CUTS.map(setOfCut)
      .map((set) => (devices === undefined ? `flush set inet cuts ${set}\n` : undo(set)))
      .join(''),
  )
}

export async function readCuts(topology: Topology): Promise<CutsByPool> {
  const { id } = topology
  const { code, stdout, stderr } = await execAt(id, placeOf(topology, CORE), ['nft', '-j', 'list', 'sets'])
  if (code !== 0)
    throw new UsageError(
      `--id ${id}: its hosts are gone (${stderr.trim()}); npm run lab -- down --id ${id} removes what is left`,
    )
  const { nftables } = JSON.parse(stdout) as {
    nftables: readonly { set?: { name: string; elem?: readonly string[] } }[]
  }
  const devicesOf = (kind: Cut) => nftables.find(({ set }) => set?.name === setOfCut(kind))?.set?.elem ?? []
  return Object.fromEntries(
    topology.pools
      .map(
        ({ name, uplink }) =>
          [name, CUTS.filter((kind) => uplink !== undefined && devicesOf(kind).includes(uplink))] as const,
      )
      .filter(([, cuts]) => cuts.length > 0),
  )
}

function uplinkOf({ pools }: Topology, name: string): string {
  const uplink = pools.find((pool) => pool.name === name)?.uplink
  if (uplink !== undefined) return uplink
  const sites = pools.flatMap((pool) => (pool.uplink === undefined ? [] : [pool.name]))
  throw new UsageError(`pool ${name}: no site of this name; the sites are ${sites.join(', ')}`)
}

async function nft(topology: Topology, rules: string): Promise<void> {
  const { code, stderr } = await execAt(topology.id, placeOf(topology, CORE), ['nft', '-f', '-'], { input: rules })
  if (code !== 0) throw new Error(`the core's rules cannot be changed: ${stderr.trim()}`)
}
