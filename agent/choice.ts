// Which endpoints of one port of a service to use: for callers that may go anywhere in the cluster, and for those that must
// stay on this node. What looks dead is left out for as long as anything better is there, and never the last ones.

import type { Endpoint, Protocol, ServicePort } from './cluster.ts'
import type { ClusterService } from './services.ts'
import { hintedLevels, preferredLevels, type Here } from './topology.ts'

/** One endpoint that a frontend may use. */
export type Target = {
  readonly address: string
  readonly port: number
  readonly node: string | undefined
  /** Its share of new connections, relative to the others'; a whole number from 1. */
  readonly weight: number
}

/**
 * Why an endpoint looks dead though the API calls it ready; undefined for one that does not. Another function whenever an
 * answer may have changed.
 */
export type Health = (address: string, port: number, node: string | undefined, protocol: Protocol) => string | undefined
/** How another node is reached; undefined where that is not known. Another function whenever an answer may have changed. */
export type Paths = (node: string) => 'direct' | 'relayed' | undefined

/** Shares of new connections by the way there, where all ways are known. */
const WEIGHTS = { node: 8, pool: 4, direct: 2, relayed: 1 } as const
/** More endpoints than this are left out on this node: maps of nft and BPF must stay bounded. */
export const TARGETS_MAX = 1000

type ReasonOf = (endpoint: Endpoint) => string | undefined

/** @param serving those that serve the port, whatever their state. */
export function clusterChoice(
  { preference }: Pick<ClusterService, 'preference'>,
  serving: readonly Endpoint[],
  here: Here,
  reasonOf: ReasonOf,
): readonly Endpoint[] {
  const levels = (endpoints: readonly Endpoint[]) =>
    preference === undefined ? hintedLevels(endpoints, here) : preferredLevels(endpoints, preference, here)
  const chosen = nearest(levels(serving.filter(({ ready }) => ready)), reasonOf)
  if (chosen.length > 0) return chosen
  const draining = serving.filter(({ draining }) => draining)
  // Hints are given for what is ready (KEP-1669); what the operator asked for holds to the end.
  return nearest(preference === undefined ? [draining] : preferredLevels(draining, preference, here), reasonOf)
}

/** Topology does not narrow this down further. */
export function localChoice(serving: readonly Endpoint[], { node }: Here, reasonOf: ReasonOf): readonly Endpoint[] {
  const local = serving.filter((endpoint) => endpoint.node === node)
  const ready = local.filter(({ ready }) => ready)
  return nearest([ready.length > 0 ? ready : local.filter(({ draining }) => draining)], reasonOf)
}

/** Whether anybody in the cluster could answer. */
export const hasAny = (serving: readonly Endpoint[]): boolean =>
  serving.some(({ ready, draining }) => ready || draining)

/** The first level where one looks alive; where none does on any, suspicion is no reason to refuse. */
function nearest(levels: readonly (readonly Endpoint[])[], reasonOf: ReasonOf): readonly Endpoint[] {
  for (const level of levels) {
    const alive = level.filter((endpoint) => reasonOf(endpoint) === undefined)
    if (alive.length > 0) return alive
  }
  return levels.find((level) => level.length > 0) ?? []
}

/** @returns the targets in the order of the endpoints, and how many there are besides. */
export function targetsOf(
  chosen: readonly Endpoint[],
  { name, protocol }: Pick<ServicePort, 'name' | 'protocol'>,
  here: Here,
  paths: Paths | undefined,
): { readonly targets: readonly Target[]; readonly left: number } {
  const all: Omit<Target, 'weight'>[] = []
  for (const { address, node, ports } of chosen)
    for (const { name: portName, protocol: portProtocol, port } of ports)
      if (portName === name && portProtocol === protocol) {
        // Endpoints come by address: an equal one is among the last.
        let i = all.length - 1
        while (i >= 0 && all[i]!.address === address && all[i]!.port !== port) i--
        const isKnown = i >= 0 && all[i]!.address === address
        all[isKnown ? i : all.length] = { address, port, node }
      }
  const kept = all.length > TARGETS_MAX ? sample(all, here.node) : all
  const weights = weightsOf(kept, here, paths)
  return {
    targets: kept.map(({ address, port, node }, i) => ({ address, port, node, weight: weights[i]! })),
    left: all.length - kept.length,
  }
}

/** Another part on each node, so that each endpoint is used by some; a change of one endpoint changes one of them. */
function sample(all: readonly Omit<Target, 'weight'>[], node: string): readonly Omit<Target, 'weight'>[] {
  const ranked = all.map((target, i) => ({ i, rank: hash(`${node} ${target.address} ${target.port}`) }))
  const kept = ranked.sort((a, b) => a.rank - b.rank || a.i - b.i).slice(0, TARGETS_MAX)
  return kept.sort((a, b) => a.i - b.i).map(({ i }) => all[i]!)
}

/** FNV-1a, 32 bits. */
function hash(text: string): number {
  let value = 0x811c9dc5
  for (let i = 0; i < text.length; i++) value = Math.imul(value ^ text.charCodeAt(i), 0x01000193)
  return value >>> 0
}

/** In lowest terms; equal where the way to any of them is not known. */
function weightsOf(targets: readonly Pick<Target, 'node'>[], here: Here, paths: Paths | undefined): readonly number[] {
  const weights = targets.map(({ node }) => {
    if (paths === undefined || node === undefined) return 0
    if (node === here.node) return WEIGHTS.node
    if (here.neighbours.has(node)) return WEIGHTS.pool
    const path = paths(node)
    return path === undefined ? 0 : WEIGHTS[path]
  })
  if (weights.includes(0)) return weights.map(() => 1)
  // Powers of two: the least divides all.
  const least = Math.min(...weights)
  return weights.map((weight) => weight / least)
}
