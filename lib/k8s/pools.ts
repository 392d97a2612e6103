// Which pools there are, which nodes and pod prefixes each has, and which of its nodes may be its gateway: a pure
// reading of Node, NodePool and Raven Gateway objects, the same on every node and in every daemon.

import { compareCidrs, contains, normalise, overlaps, parseCidr, type Cidr } from '../cidr.ts'
import type { Node, NodePool, RavenGateway } from './objects.ts'

export type PoolNode = {
  readonly name: string
  /** InternalIPs in canonical text, in the order of the Node object. */
  readonly addresses: readonly string[]
  /** Canonical prefixes that nobody else claims. */
  readonly podCidrs: readonly string[]
}
export type Pool = {
  readonly name: string
  /** By name. */
  readonly nodes: readonly PoolNode[]
  /** Names of nodes in order of preference, at least one. */
  readonly gateways: readonly string[]
}

export const LABEL_NODE_POOL = 'apps.openyurt.io/nodepool'
const LABEL_RAVEN_GATEWAY = 'raven.openyurt.io/gateway'
const LABEL_GATEWAY_CANDIDATE = 'fulmar.dev/gateway'

/** What was left out and the remedy, with the names of the nodes whose objects would have to change. */
export type PoolProblem = { readonly message: string; readonly nodes: readonly string[] }

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
  const contested = contestedPrefixes(claims, problems)
  const prefixesOf = Map.groupBy(
    claims.filter(({ cidr }) => !contested.has(cidr.text)),
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
    gateways: candidatesOf(name, list, gatewayByName.get(name), problems),
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
  for (const node of nodes.toSorted((a, b) => compare(nameOf(a), nameOf(b)))) {
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
  return new Map([...shared].toSorted(([a], [b]) => compare(a, b)))
}

type Claim = { readonly cidr: Cidr; readonly node: string; readonly pool: string }

function claimsOf(node: Node, pool: string, problems: PoolProblem[]): readonly Claim[] {
  const claims = new Map<string, Claim>()
  for (const text of [node.spec?.podCIDRs ?? (node.spec?.podCIDR || [])].flat()) {
    const cidr = parseCidr(String(text))
    const reason = cidr === undefined ? 'is no CIDR such as 10.244.1.0/24 or fd00:244:1::/64' : unfit(cidr)
    if (reason !== undefined)
      problems.push({
        nodes: [nameOf(node)],
        message: `node ${nameOf(node)}: podCIDR ${JSON.stringify(text)} ${reason}: it is left out; correct spec.podCIDRs`,
      })
    else claims.set(cidr!.text, { cidr: cidr!, node: nameOf(node), pool })
  }
  return [...claims.values()]
}

const RESERVED = ['0.0.0.0/8', '127.0.0.0/8', '169.254.0.0/16', '224.0.0.0/3', '::/127', 'fe80::/10', 'ff00::/8'].map(
  (text) => parseCidr(text)!,
)

function unfit(cidr: Cidr): string | undefined {
  const reserved = RESERVED.find((range) => overlaps(range, cidr))
  return reserved && `covers addresses of ${reserved.text}, which pods cannot have`
}

/**
 * Prefixes that a node of another pool claims too, wholly or in part; each is named once. Sorted prefixes nest, so what
 * contains the current one is on the stack, which is never deeper than an address has bits.
 */
function contestedPrefixes(claims: readonly Claim[], problems: PoolProblem[]): ReadonlySet<string> {
  const contested = new Set<string>()
  const groups = [...Map.groupBy(claims, ({ cidr }) => cidr.text).values()].toSorted((a, b) =>
    compareCidrs(a[0]!.cidr, b[0]!.cidr),
  )
  const around: Claim[][] = []
  const name = (claimants: readonly Claim[], message: string) =>
    problems.push({
      nodes: claimants.slice(0, HOLDERS_NAMED_MAX).map(({ node }) => node),
      message: `${message}; give each node a podCIDR of its own`,
    })
  for (const group of groups) {
    const { cidr } = group[0]!
    while (around.length > 0 && !overlaps(around.at(-1)![0]!.cidr, cidr)) around.pop()
    if (poolsIn(group) > 1) {
      contested.add(cidr.text)
      name(group, `podCIDR ${cidr.text} is claimed by ${holders(group)}: none of them gets it`)
    } else if (group.length > 1) {
      name(group, `podCIDR ${cidr.text} is claimed by ${holders(group)}: its pods may be looked for on the wrong node`)
    }
    for (const outer of around.filter((other) => poolsIn([...other, ...group]) > 1)) {
      contested.add(cidr.text).add(outer[0]!.cidr.text)
      const wider = `${outer[0]!.cidr.text} of ${holders(outer)}`
      name([...group, ...outer], `podCIDR ${cidr.text} of ${holders(group)} lies in ${wider}: none of them gets either`)
    }
    around.push(group)
  }
  return contested
}

const HOLDERS_NAMED_MAX = 5

function holders(claims: readonly Claim[]): string {
  const named = claims.slice(0, HOLDERS_NAMED_MAX).map(({ node, pool }) => `node ${node} of pool ${pool}`)
  const rest = claims.length - named.length
  return [...named, ...(rest > 0 ? [`${rest} more`] : [])].join(' and ')
}

const poolsIn = (claims: readonly Claim[]) => new Set(claims.map(({ pool }) => pool)).size

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

function candidatesOf(
  pool: string,
  nodes: readonly Node[],
  gateway: RavenGateway | undefined,
  problems: PoolProblem[],
): readonly string[] {
  const names = nodes.map(nameOf)
  const chosen = new Set<string>()
  for (const { nodeName, type } of gateway?.spec?.endpoints ?? []) {
    if (type !== undefined && type !== '' && type !== 'tunnel') continue
    if (names.includes(nodeName)) chosen.add(nodeName)
    else
      problems.push({
        nodes: [nodeName],
        message: `Gateway ${pool}: endpoint ${nodeName} is no node of pool ${pool}: it is left out; correct spec.endpoints or the node's labels`,
      })
  }
  if (chosen.size > 0) return [...chosen]
  const labelled = nodes.filter(({ metadata }) => metadata?.labels?.[LABEL_GATEWAY_CANDIDATE] === 'true').map(nameOf)
  return labelled.length > 0 ? labelled : names
}

const nameOf = (node: Node) => node.metadata?.name ?? ''
const compare = (a: string, b: string) => (a < b ? -1 : a > b ? 1 : 0)

/**
 * Leaves out prefixes of other pools that this node cannot route into the mesh without cutting itself off: those that
 * hold an address of its own, of the relay or of the API.
 * @param outside addresses that must stay reachable without the mesh, with what they are, for people.
 */
export function withoutOutside(
  pools: readonly Pool[],
  outside: readonly { readonly address: string; readonly what: string }[],
): { pools: readonly Pool[]; problems: readonly string[] } {
  const problems: string[] = []
  const isInside = (pool: Pool, node: PoolNode, text: string): boolean => {
    const cidr = parseCidr(text)
    const held = cidr && outside.find(({ address }) => contains(cidr, address))
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
