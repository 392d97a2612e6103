// Where a CONNECT of kube-apiserver leads: to a node over its agent's session, or straight there. What it asks for is
// HOST:PORT, where HOST is one of a node's addresses or its name, a pod's or a Service's address, or a name of the cloud.

import { isIP } from 'node:net'
import { canonicalAddress } from '../lib/address.ts'
import { covering } from '../lib/cidr.ts'
import type { KubernetesObject } from '../lib/k8s/objects.ts'
import { KUBELET_PORT } from './node-dial.ts'

/** A node as the cluster's objects have it. */
export type RoutedNode = {
  readonly name: string
  /** Of its status, whatever their type; a node writes them itself. */
  readonly addresses: readonly string[]
  readonly podCidrs: readonly string[]
}

export type EgressRoute =
  | { readonly kind: 'node'; readonly node: string }
  /** `podOf` is the node whose pod it is, as far as that is known; `claimedBy` the one that says it is an address of its own. */
  | { readonly kind: 'direct'; readonly host: string; readonly podOf?: string; readonly claimedBy?: string }
  | { readonly kind: 'refused'; readonly reason: string }

export type EgressOptions = {
  readonly hasSession: (node: string) => boolean
  /** It has or had a session: a node is known by its certificate, which counts even where no object tells of it. */
  readonly isKnown: (node: string) => boolean
  /** Whether this address of a node is dialled straight while the node has no session: those of the cloud. */
  readonly isCloud: (address: string) => boolean
}

/** Kubernetes', and KubeEdge's. */
const KUBELET_PORTS: readonly number[] = [KUBELET_PORT, 10350]

/**
 * A node's name is its own. An address is what it says of itself: so two that claim one get none of its traffic, and whoever
 * claims one gets what is for kubelets alone, since it may be a webhook's or a pod's.
 */
export function createEgressTable(
  nodes: readonly RoutedNode[],
  { hasSession, isKnown, isCloud }: EgressOptions,
): (host: string, port: number) => EgressRoute {
  const names = new Map(nodes.map((node) => [node.name, node]))
  const claims = new Map<string, Set<string>>()
  for (const { name, addresses } of nodes)
    for (const address of addresses) {
      const key = keyOf(address)
      claims.set(key, (claims.get(key) ?? new Set()).add(name))
    }
  const pods = nodes.map(({ name, podCidrs }) => ({ name, covers: covering(podCidrs) }))
  const isPod = covering(nodes.flatMap(({ podCidrs }) => podCidrs))

  const toNode = (node: string, asked: string): EgressRoute => {
    if (hasSession(node)) return { kind: 'node', node }
    const own = names.get(node)?.addresses ?? []
    const host = [asked, ...own].find((address) => isIP(address) !== 0 && isCloud(address) && !isForbidden(address))
    return host === undefined ? { kind: 'node', node } : { kind: 'direct', host }
  }

  return (asked, port) => {
    const host = keyOf(asked)
    if (names.has(host) || (isIP(host) === 0 && isKnown(host))) return toNode(host, host)
    const claimants = isPod(host) ? [] : [...(claims.get(host) ?? [])].toSorted()
    const [first, ...others] = claimants
    if (first !== undefined && KUBELET_PORTS.includes(port))
      return others.length === 0
        ? toNode(first, host)
        : { kind: 'refused', reason: `${host} is claimed by ${claimants.slice(0, 4).join(' and ')}` }
    if (isForbidden(host)) return { kind: 'refused', reason: `${host} is never dialled from here` }
    const podOf = isPod(host) ? pods.find(({ covers }) => covers(host))?.name : undefined
    const claimedBy = others.length === 0 ? first : undefined
    return {
      kind: 'direct',
      host,
      ...(podOf !== undefined && { podOf }),
      ...(claimedBy !== undefined && { claimedBy }),
    }
  }
}

const keyOf = (host: string): string => canonicalAddress(host) ?? host.toLowerCase()

const NEVER = ['0.0.0.0/8', '127.0.0.0/8', '169.254.0.0/16', '224.0.0.0/3', '100.100.100.200/32']
/** IPv6 addresses that stand for IPv4 ones: mapped (which the kernel dials as such), and NAT64's (RFC 6052). */
const inIpv6 = (cidr: string): readonly string[] => {
  const [address, length] = cidr.split('/')
  return ['::ffff:', '64:ff9b::'].map((prefix) => `${prefix}${address}/${96 + Number(length)}`)
}

/** Not even for kube-apiserver: this machine, link-local and metadata addresses, and what is no host's. */
export const isForbidden = covering([
  ...NEVER,
  ...NEVER.flatMap(inIpv6),
  ...['::/127', 'fe80::/10', 'ff00::/8', 'fd00:ec2::254/128', 'fd20:ce::254/128', '2002::/16'],
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
