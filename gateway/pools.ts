// The pools as this node may route them, from the cluster's objects. Nodes report themselves every few minutes, and with a
// thousand of them some object changes at any time; so what says the same as before is the same value as before, and
// whoever plans from pools sees by identity what is to be planned anew. Pure.

import type { Node, NodePool, RavenGateway } from '../lib/k8s/objects.ts'
import { poolsOf, withoutOutside, type OutsideAddress, type Pool } from '../lib/k8s/pools.ts'
import { insideOf, type IsInside } from './candidates.ts'

export type PoolObjects = {
  readonly nodes: readonly Node[]
  readonly nodePools: readonly NodePool[]
  readonly gateways: readonly RavenGateway[]
}
export type RoutablePools = { readonly pools: readonly Pool[]; readonly problems: readonly string[] }

export class PoolView {
  /** By the pools of the last look. */
  isInside: IsInside = insideOf([])
  #objects: PoolObjects = { nodes: [], nodePools: [], gateways: [] }
  #known: RoutablePools = NONE
  #outside = ''
  #routable: RoutablePools = NONE

  /** @param outsideOf the addresses outside, for a node that has these pools. */
  look(objects: PoolObjects, outsideOf: (pools: readonly Pool[]) => readonly OutsideAddress[]): RoutablePools {
    const known = this.#read(objects)
    const outside = outsideOf(known.pools)
    const text = JSON.stringify(outside)
    if (known === this.#known && text === this.#outside) return this.#routable
    this.#known = known
    this.#outside = text
    const routable = withoutOutside(known.pools, outside)
    const pools = unchanged(this.#routable.pools, routable.pools)
    if (pools !== this.#routable.pools) this.isInside = insideOf(pools.flatMap(prefixesOf))
    return (this.#routable = { pools, problems: [...known.problems, ...routable.problems] })
  }

  #read(objects: PoolObjects): RoutablePools {
    const { nodes, nodePools, gateways } = this.#objects
    this.#objects = objects
    const same =
      this.#known !== NONE &&
      nodePools === objects.nodePools &&
      gateways === objects.gateways &&
      nodes.length === objects.nodes.length &&
      nodes.every((node, i) => saysTheSame(node, objects.nodes[i]!))
    return same ? this.#known : poolsOf(objects.nodes, objects.nodePools, objects.gateways)
  }
}

const NONE: RoutablePools = { pools: [], problems: [] }

const prefixesOf = ({ nodes }: Pool): readonly string[] => nodes.flatMap(({ podCidrs }) => podCidrs)

/** Whether two objects are one for `poolsOf`, which reads nothing of how a node fares. */
const saysTheSame = (a: Node, b: Node): boolean => a === b || partText(a) === partText(b)

function partText({ metadata: { resourceVersion: _, ...metadata } = {}, spec, status }: Node): string {
  return JSON.stringify([metadata, spec, status?.addresses])
}

/** @returns `next` with the pools of `before` that are equal to its own, and `before` itself where all are. */
function unchanged(before: readonly Pool[], next: readonly Pool[]): readonly Pool[] {
  const known = new Map(before.map((pool) => [pool.name, pool]))
  const pools = next.map((pool) => {
    const earlier = known.get(pool.name)
    return earlier !== undefined && JSON.stringify(earlier) === JSON.stringify(pool) ? earlier : pool
  })
  return pools.length === before.length && pools.every((pool, i) => pool === before[i]) ? before : pools
}
