// Which pod runs on which node with which addresses and ports: what a scheduler, a CNI and the container would decide.

import ipaddr from 'ipaddr.js'
import { contains, normalise, parseCidr, type Cidr } from '../../lib/cidr.ts'
import type { EndpointSlice, Pod } from '../../lib/k8s/objects.ts'
import { fitsHost, podHostOf } from './names.ts'

export type PlacedPod = {
  /** Its host in the lab, `NODE-POD`. */
  readonly host: string
  readonly node: string
  readonly namespace: string
  readonly name: string
  /** It runs in its node's own network namespace. */
  readonly hostNetwork: boolean
  /** At most one per family; empty for hostNetwork. */
  readonly addresses: readonly string[]
  readonly tcpPorts: readonly number[]
  readonly udpPorts: readonly number[]
}

/** A node to place on: its name and the podCIDRs of its own object. */
export type PlacementNode = { readonly name: string; readonly podCidrs: readonly string[] }

/** The first address of each podCIDR is the node's own end of all its pod links, as the ptp CNI does. */
export const gatewayAddresses = (podCidrs: readonly string[]): readonly string[] =>
  familiesOf(podCidrs).map((cidr) => addressAt(cidr, 1n))

/** @param taken names of hosts that pods may not have. */
export function placePods(
  pods: readonly Pod[],
  slices: readonly EndpointSlice[],
  nodes: readonly PlacementNode[],
  taken: ReadonlySet<string>,
): { readonly pods: readonly PlacedPod[]; readonly problems: readonly string[] } {
  const problems: string[] = []
  const byNode = new Map(nodes.map((node) => [node.name, node]))
  const hosts = new Set(taken)
  const used = new Set(nodes.flatMap(({ podCidrs }) => gatewayAddresses(podCidrs)))
  const targets = targetsOf(slices)

  const candidates = pods.flatMap((pod) => {
    const { name = '', namespace = 'default' } = pod.metadata ?? {}
    const node = byNode.get(pod.spec?.nodeName ?? '')
    const leave = (reason: string) => (problems.push(`pod ${namespace}/${name} ${reason}: it is left out`), [])
    if (node === undefined)
      return leave(`is on node ${JSON.stringify(pod.spec?.nodeName ?? '')}, which the lab has not`)
    const host = podHostOf(node.name, name)
    if (hosts.has(host) || !fitsHost(host))
      return leave(`would be host ${host}, a name that is taken, too long or none for a host`)
    hosts.add(host)
    const target = targets.get(`${namespace}/${name}`)
    const hostNetwork = pod.spec?.hostNetwork === true
    const said = (pod.status?.podIPs ?? []).map(({ ip }) => ip ?? '').concat(pod.status?.podIP ?? [])
    const wanted = hostNetwork ? [] : [...said, ...(target?.addresses ?? [])].flatMap((text) => normalise(text) ?? [])
    return [{ pod, name, namespace, node, host, hostNetwork, target, wanted }]
  })
  // Every address that is asked for is taken before the first free one is looked for.
  const kept = candidates.map(({ node, wanted, host }) =>
    familiesOf(node.podCidrs).map((cidr) => {
      const address = wanted.find((text) => contains(cidr, text))
      if (address === undefined) return undefined
      if (!used.has(address)) return (used.add(address), address)
      problems.push(`pod ${host}: address ${address} is taken: it gets another one`)
      return undefined
    }),
  )
  const placed = candidates.map(({ pod, name, namespace, node, host, hostNetwork, target }, index) => {
    const addresses = hostNetwork
      ? []
      : familiesOf(node.podCidrs).flatMap((cidr, family) => kept[index]![family] ?? nextFree(cidr, used) ?? [])
    const ports = (pod.spec?.containers ?? [])
      .flatMap(({ ports: list }) => list ?? [])
      .map(({ containerPort, protocol }) => ({
        port: containerPort,
        protocol: protocol ?? 'TCP',
      }))
    const all = [...ports, ...(target?.ports ?? [])]
    const portsOf = (wanted: string) =>
      [
        ...new Set(all.filter(({ protocol, port }) => protocol === wanted && isPort(port)).map(({ port }) => port)),
      ].toSorted((a, b) => a - b)
    return {
      host,
      node: node.name,
      namespace,
      name,
      hostNetwork,
      addresses,
      tcpPorts: portsOf('TCP'),
      udpPorts: portsOf('UDP'),
    }
  })
  const homeless = placed.filter(({ hostNetwork, addresses }) => !hostNetwork && addresses.length === 0)
  problems.push(
    ...homeless.map(({ host, node }) => `pod ${host}: node ${node} has no podCIDR with a free address: it is left out`),
  )
  return { pods: placed.filter((pod) => !homeless.includes(pod)), problems }
}

type Target = { readonly addresses: string[]; readonly ports: { port: number; protocol: string }[] }

/** What EndpointSlices say of a pod, by `NAMESPACE/NAME`. */
function targetsOf(slices: readonly EndpointSlice[]): ReadonlyMap<string, Target> {
  const targets = new Map<string, Target>()
  for (const slice of slices)
    for (const { targetRef, addresses } of slice.endpoints ?? []) {
      if (targetRef?.kind !== 'Pod') continue
      const key = `${targetRef.namespace ?? slice.metadata?.namespace ?? 'default'}/${targetRef.name ?? ''}`
      const target = targets.get(key) ?? { addresses: [], ports: [] }
      target.addresses.push(...(addresses ?? []))
      target.ports.push(
        ...(slice.ports ?? []).flatMap(({ port, protocol }) =>
          port === undefined ? [] : [{ port, protocol: protocol ?? 'TCP' }],
        ),
      )
      targets.set(key, target)
    }
  return targets
}

/** The first prefix of each family; IPv4 first. */
function familiesOf(podCidrs: readonly string[]): readonly Cidr[] {
  const cidrs = podCidrs.flatMap((text) => parseCidr(text) ?? [])
  return ([4, 6] as const).flatMap(
    (family) => cidrs.find((cidr) => cidr.family === family && cidr.last - cidr.first >= 3n) ?? [],
  )
}

/** Pods without an address of their own start here, past what people write by hand. */
const FIRST_FREE = 100n

function nextFree(cidr: Cidr, used: Set<string>): string | undefined {
  const last = cidr.last - cidr.first
  const first = last > FIRST_FREE * 2n ? FIRST_FREE : 2n
  for (let offset = first; offset < last; offset++) {
    const address = addressAt(cidr, offset)
    if (!used.has(address)) return (used.add(address), address)
  }
  return undefined
}

function addressAt(cidr: Cidr, offset: bigint): string {
  const bytes: number[] = []
  for (let shift = cidr.family === 4 ? 24n : 120n; shift >= 0n; shift -= 8n)
    bytes.push(Number(((cidr.first + offset) >> shift) & 0xffn))
  return ipaddr.fromByteArray(bytes).toString()
}

const isPort = (port: unknown): port is number => Number.isInteger(port) && Number(port) > 0 && Number(port) < 65536
