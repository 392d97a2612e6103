// Where a CONNECT of kube-apiserver leads: to a node over its agent's session, or straight there. What it asks for is
// HOST:PORT, where HOST is one of a node's addresses or its name, a pod's or a Service's address, or a name of the cloud.

import { isIP } from 'node:net'
import { canonicalAddress } from '../lib/address.ts'
import { covering } from '../lib/cidr.ts'
import type { KubernetesObject } from '../lib/k8s/objects.ts'

/** A node as the cluster's objects have it. */
export type RoutedNode = {
  readonly name: string
  /** Of its status, whatever their type; a node writes them itself. */
  readonly addresses: readonly string[]
  readonly podCidrs: readonly string[]
}

export type EgressRoute =
  | { readonly kind: 'node'; readonly node: string }
  /** `podOf` is the node whose pod it is, as far as that is known. */
  | { readonly kind: 'direct'; readonly host: string; readonly podOf?: string }
  | { readonly kind: 'refused'; readonly reason: string }

export type EgressOptions = {
  readonly hasSession: (node: string) => boolean
  /** It has or had a session: a node is known by its certificate, which counts even where no object tells of it. */
  readonly isKnown: (node: string) => boolean
  /** Whether this address of a node is dialled straight while the node has no session: those of the cloud. */
  readonly isCloud: (address: string) => boolean
}

/** Two nodes that claim one address get none of its traffic; a node's name is its own. */
export function createEgressTable(
  nodes: readonly RoutedNode[],
  { hasSession, isKnown, isCloud }: EgressOptions,
): (host: string) => EgressRoute {
  const names = new Map(nodes.map((node) => [node.name, node]))
  const claims = new Map<string, Set<string>>()
  for (const { name, addresses } of nodes)
    for (const address of addresses) {
      const key = keyOf(address)
      claims.set(key, (claims.get(key) ?? new Set()).add(name))
    }
  const pods = nodes.map(({ name, podCidrs }) => ({ name, covers: covering(podCidrs) }))

  const toNode = (node: string, asked: string): EgressRoute => {
    if (hasSession(node)) return { kind: 'node', node }
    const own = names.get(node)?.addresses ?? []
    const host = [asked, ...own].find((address) => isIP(address) !== 0 && isCloud(address) && !isForbidden(address))
    return host === undefined ? { kind: 'node', node } : { kind: 'direct', host }
  }

  return (asked) => {
    const host = keyOf(asked)
    if (names.has(host) || (isIP(host) === 0 && isKnown(host))) return toNode(host, host)
    const claimants = [...(claims.get(host) ?? [])].toSorted()
    if (claimants.length > 1)
      return { kind: 'refused', reason: `${host} is claimed by ${claimants.slice(0, 4).join(' and ')}` }
    if (claimants.length === 1) return toNode(claimants[0]!, host)
    if (isForbidden(host)) return { kind: 'refused', reason: `${host} is never dialled from here` }
    const podOf = isIP(host) === 0 ? undefined : pods.find(({ covers }) => covers(host))?.name
    return { kind: 'direct', host, ...(podOf !== undefined && { podOf }) }
  }
}

const keyOf = (host: string): string => canonicalAddress(host) ?? host.toLowerCase()

/** Not even for kube-apiserver: this machine, link-local and metadata addresses, and what is no host's. */
export const isForbidden = covering([
  ...['0.0.0.0/8', '127.0.0.0/8', '169.254.0.0/16', '224.0.0.0/3', '100.100.100.200/32'],
  ...['::/127', 'fe80::/10', 'ff00::/8', 'fd00:ec2::254/128', 'fd20:ce::254/128'],
])

/** What counts of a Node object. */
export function routedNode({
  metadata,
  spec,
  status,
}: KubernetesObject & { readonly spec?: unknown; readonly status?: unknown }): RoutedNode {
  const { podCIDRs, podCIDR } = (spec ?? {}) as { podCIDRs?: unknown; podCIDR?: unknown }
  const { addresses } = (status ?? {}) as { addresses?: unknown }
  const texts = (values: unknown): readonly string[] =>
    Array.isArray(values) ? values.filter((value) => typeof value === 'string') : []
  return {
    name: metadata?.name ?? '',
    addresses: Array.isArray(addresses)
      ? texts(addresses.map((each: { address?: unknown } | null) => each?.address))
      : [],
    podCidrs: texts(podCIDRs ?? [podCIDR]),
  }
}
