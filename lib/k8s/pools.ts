// Which pools there are, which nodes and pod prefixes each has, and which of its nodes may be its gateway: a pure
// reading of Node, NodePool and Raven Gateway objects, the same on every node and in every daemon.

import { normalise, overlaps, parseCidr } from '../cidr.ts'
import { compareTexts } from '../order.ts'
import type { Node, NodePool, RavenGateway } from './objects.ts'
import { claimsOf, createdMs, grantedClaims, type PoolProblem } from './pod-cidrs.ts'
import { readGateway, type GatewayEndpoint } from './raven-gateway.ts'

export type PoolNode = {
  readonly name: string
  /** InternalIPs in canonical text, in the order of the Node object. */
  readonly addresses: readonly string[]
  /** Canonical prefixes that no other pool has a better claim to. */
  readonly podCidrs: readonly string[]
}
export type Pool = {
  readonly name: string
  /** By name. */
  readonly nodes: readonly PoolNode[]
  /** Names of nodes in order of preference; none where the pool's Gateway object says that it has no tunnels. */
  readonly gateways: readonly string[]
  /** What the Gateway object says of nodes of this pool. */
  readonly endpoints?: readonly GatewayEndpoint[]
}

export const LABEL_NODE_POOL = 'apps.openyurt.io/nodepool'
export const LABEL_RAVEN_GATEWAY = 'raven.openyurt.io/gateway'
const LABEL_GATEWAY_CANDIDATE = 'fulmar.dev/gateway'

/** Pools by name; `problems` names each object, or part of one, that was left out, and the remedy. */
export function poolsOf(
  nodes: readonly Node[],
  nodePools: readonly NodePool[],
  gateways: readonly RavenGateway[],
): { pools: readonly Pool[]; problems: readonly string[] } {
  const { pools, problems } = readPools(nodes, nodePools, gateways)
  return { pools, problems: problems.map(({ message }) => message) }
}

/** The problems of `poolsOf`, for a reader that knows where the nodes' objects stand. */
export function poolProblems(
  nodes: readonly Node[],
  nodePools: readonly NodePool[],
  gateways: readonly RavenGateway[],
): readonly PoolProblem[] {
  return readPools(nodes, nodePools, gateways).problems
}

function readPools(nodes: readonly Node[], nodePools: readonly NodePool[], gateways: readonly RavenGateway[]) {
  const problems: PoolProblem[] = []
  const members = membersByPool(nodes, nodePools, problems)
  const claims = [...members].flatMap(([pool, list]) => list.flatMap((node) => claimsOf(node, pool, problems)))
  const granted = new Set(grantedClaims(claims, problems))
  const prefixesOf = Map.groupBy(
    claims.filter((claim) => granted.has(claim)),
    ({ node }) => node,
  )
  const gatewayByName = new Map(gateways.map((gateway) => [gateway.metadata?.name, gateway]))

  const pools = [...members].map(([name, list]) => ({
    name,
    nodes: list.map((node) => ({
      name: nameOf(node),
      addresses: addressesOf(node, problems),
      podCidrs: (prefixesOf.get(nameOf(node)) ?? []).map(({ cidr }) => cidr.text),
    })),
    ...gatewaysOf(name, list, gatewayByName.get(name), problems),
  }))
  return { pools, problems }
}

/** Nodes by the name of their pool, both sorted. */
function membersByPool(
  nodes: readonly Node[],
  nodePools: readonly NodePool[],
  problems: PoolProblem[],
): Map<string, Node[]> {
  const isolated = new Set(
    nodePools.filter(({ spec }) => spec?.interConnectivity === false).map(({ metadata }) => metadata?.name),
  )
  const shared = new Map<string, Node[]>()
  const alone: Node[] = []
  for (const node of nodes.toSorted((a, b) => compareTexts(nameOf(a), nameOf(b)))) {
    const labels = node.metadata?.labels ?? {}
    const nodePool = labels[LABEL_NODE_POOL] || undefined
    const pool = labels[LABEL_RAVEN_GATEWAY] || (isolated.has(nodePool) ? undefined : nodePool)
    if (pool === undefined) alone.push(node)
    else shared.set(pool, [...(shared.get(pool) ?? []), node])
  }
  for (const node of alone) {
    const name = nameOf(node)
    // Merged into that pool, the node would be taken for a neighbour on a LAN that it is not on.
    if (shared.has(name))
      problems.push({
        nodes: [name],
        message:
          `node ${name} is in no pool and has the name of a pool of others: it is left out; ` +
          `set its label ${LABEL_NODE_POOL}, or rename the node or the pool`,
      })
    else shared.set(name, [node])
  }
  return new Map([...shared].toSorted(([a], [b]) => compareTexts(a, b)))
}

function addressesOf(node: Node, problems: PoolProblem[]): readonly string[] {
  const addresses = new Set<string>()
  for (const { type, address } of node.status?.addresses ?? []) {
    if (type !== 'InternalIP') continue
    const canonical = normalise(String(address))
    if (canonical === undefined || canonical.includes('/'))
      problems.push({
        nodes: [nameOf(node)],
        message: `node ${nameOf(node)}: InternalIP ${JSON.stringify(address)} is no IP address: it is left out; correct status.addresses`,
      })
    else addresses.add(canonical)
  }
  return [...addresses]
}

/**
 * Who the object names, else who the label does, else everybody. Among equals, whom Raven's election chose comes first,
 * then the oldest Node: a Node that is added later never takes the gateway's part from one that has it.
 */
function gatewaysOf(
  pool: string,
  nodes: readonly Node[],
  gateway: RavenGateway | undefined,
  problems: PoolProblem[],
): Pick<Pool, 'gateways' | 'endpoints'> {
  const names = nodes.map(nameOf)
  const { endpoints, tunnels, elected } = readGateway(pool, names, gateway, problems)
  if (!tunnels) return { gateways: [] }
  if (endpoints.length > 0) return { gateways: endpoints.map(({ node }) => node), endpoints }
  const labelled = nodes.filter(({ metadata }) => metadata?.labels?.[LABEL_GATEWAY_CANDIDATE] === 'true').map(nameOf)
  const ages = new Map(nodes.map((node) => [nameOf(node), createdMs(node) ?? Number.MAX_SAFE_INTEGER]))
  const equals = (labelled.length > 0 ? labelled : names).toSorted((a, b) => ages.get(a)! - ages.get(b)!)
  const isElected = (name: string) => elected.includes(name)
  return { gateways: [...equals.filter(isElected), ...equals.filter((name) => !isElected(name))] }
}

const nameOf = (node: Node) => node.metadata?.name ?? ''

/** An address that must stay reachable without the mesh, and what it is, for people. */
export type OutsideAddress = { readonly address: string; readonly what: string }

/**
 * Leaves out prefixes of other pools that this node cannot route into the mesh without cutting itself off: those that
 * hold an address of its own, of the relay or of the API.
 */
export function withoutOutside(
  pools: readonly Pool[],
  outside: readonly OutsideAddress[],
): { pools: readonly Pool[]; problems: readonly string[] } {
  const problems: string[] = []
  const single = outside.flatMap(({ address, what }) => {
    const cidr = parseCidr(`${address}/${address.includes(':') ? 128 : 32}`)
    return cidr === undefined ? [] : [{ cidr, address, what }]
  })
  const isInside = (pool: Pool, node: PoolNode, text: string): boolean => {
    const cidr = parseCidr(text)
    const held = cidr && single.find((other) => overlaps(cidr, other.cidr))
    if (held === undefined) return true
    problems.push(
      `pool ${pool.name}, node ${node.name}: podCIDR ${text} holds ${held.address}, ${held.what}: it is not routed; give the node another podCIDR`,
    )
    return false
  }
  return {
    pools: pools.map((pool) => ({
      ...pool,
      nodes: pool.nodes.map((node) => ({
        ...node,
        podCidrs: node.podCidrs.filter((text) => isInside(pool, node, text)),
      })),
    })),
    problems,
  }
}
