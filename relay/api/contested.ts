// Prefixes of pods that two pools of the folder claim. Who reads the API goes by the age of Nodes (lib/k8s/pod-cidrs.ts),
// but those of a folder are often of one age. What a folder knows instead is what was edited: a Node that takes a prefix
// from another pool is served as it was before.

import { overlaps } from '../../lib/cidr.ts'
import type { KubernetesObject, Node, NodePool, RavenGateway } from '../../lib/k8s/objects.ts'
import { claimsOf } from '../../lib/k8s/pod-cidrs.ts'
import { LABEL_NODE_POOL, LABEL_RAVEN_GATEWAY, poolProblems, poolsOf } from '../../lib/k8s/pools.ts'
import type { ManifestObject } from './manifest-file.ts'

type Objects = ReadonlyMap<string, ManifestObject>
export type Taker = {
  /** What to serve in its place. */
  readonly before: ManifestObject
  readonly problem: string
}

/**
 * Nodes that changed their prefixes or their pool, so that a node of another pool would lose a prefix. Those that took one
 * from another before, too, have no better state to go back to.
 * @param previous what was served until now, by the same keys.
 */
export function takersOf(objects: Objects, previous: Objects): ReadonlyMap<string, Taker> {
  const takers = new Map<string, Taker>()
  const nodes = [...objects].filter(([, { kind }]) => kind.kind === 'Node')
  const edited = nodes.filter(([key, { object }]) => {
    const known = previous.get(key)
    return known !== undefined && claimText(known.object as Node) !== claimText(object as Node)
  })
  if (edited.length === 0) return takers

  // What stood comes first, then what was edited, then what is new.
  const ages = new Map([
    ...nodes.map(([key]) => [key, previous.has(key) ? '2001-01-01' : '2003-01-01'] as const),
    ...edited.map(([key]) => [key, '2002-01-01'] as const),
  ])
  const aged = nodes.map(([key, { object }]): Node => ({
    ...(object as Node),
    metadata: { ...object.metadata, creationTimestamp: ages.get(key)! },
  }))
  const { pools } = poolsOf(aged, [], [])
  const granted = new Map(pools.flatMap((pool) => pool.nodes.map(({ name, podCidrs }) => [name, podCidrs])))
  const claims = aged.flatMap((node) => claimsOf(node, '', []))
  for (const [key, { name, place }] of edited) {
    const before = previous.get(key)!
    const stood = claimsOf(before.object as Node, '', [])
    if (stood.some(({ cidr }) => claims.some((other) => other.node !== name && overlaps(other.cidr, cidr)))) continue
    const lost = claims.find(({ node, cidr }) => node === name && !granted.get(name)?.includes(cidr.text))
    const rival = lost && claims.find(({ node, cidr }) => node !== name && overlaps(cidr, lost.cidr))
    if (rival === undefined) continue
    takers.set(key, {
      before: before.place === place ? before : { ...before, place },
      problem:
        `${place}: Node ${name}: podCIDR ${lost!.cidr.text} takes ${rival.cidr.text} from node ${rival.node} of another ` +
        'pool: it is served as last known good until it is corrected; give each node a podCIDR of its own',
    })
  }
  return takers
}

/** What decides about a node's prefixes. */
const claimText = ({ metadata, spec }: Node): string =>
  JSON.stringify([
    spec?.podCIDR,
    spec?.podCIDRs,
    metadata?.labels?.[LABEL_NODE_POOL],
    metadata?.labels?.[LABEL_RAVEN_GATEWAY],
  ])

/**
 * What is wrong between objects that are each right: agents name it too, but only here are its files known.
 * @param served the objects of a kind, with the ages that agents see.
 */
export function contestedIn(
  objects: Objects,
  served: (kind: string) => readonly KubernetesObject[],
): readonly string[] {
  const placesOf = (kindName: string) =>
    new Map([...objects.values()].filter(({ kind }) => kind.kind === kindName).map(({ name, place }) => [name, place]))
  const [nodePlaces, gatewayPlaces] = [placesOf('Node'), placesOf('Gateway')]
  const problems = poolProblems(
    served('Node') as readonly Node[],
    served('NodePool') as readonly NodePool[],
    served('Gateway') as readonly RavenGateway[],
  )
  return problems.map(({ message, nodes, gateway }) => {
    const ofGateway = gateway === undefined ? undefined : gatewayPlaces.get(gateway)
    const named = ofGateway === undefined ? nodes.flatMap((node) => nodePlaces.get(node) ?? []) : [ofGateway]
    return named.length === 0 ? message : `${named.join(', ')}: ${message}`
  })
}
