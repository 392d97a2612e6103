// The endpoints of a service, read from its EndpointSlices.

import { isIPv6 } from 'node:net'
import { ipv4Number } from '../lib/address.ts'
import { normalise, type Family } from '../lib/cidr.ts'
import { keptMetadata, oneOfEach, trimmed, type KeptMetadata } from '../lib/k8s/kept.ts'
import type { EndpointPort, EndpointSlice } from '../lib/k8s/objects.ts'
import { compareTexts } from '../lib/order.ts'

export type Protocol = 'TCP' | 'UDP' | 'SCTP'
export type Address = { readonly family: Family; readonly address: string }
export type Port = { readonly name: string; readonly protocol: Protocol; readonly port: number }

export type Endpoint = Address & {
  readonly node: string | undefined
  readonly hostname: string | undefined
  readonly zone: string | undefined
  readonly ready: boolean
  /** Terminating, but still answering: used where nothing is ready (KEP-1669). */
  readonly draining: boolean
  /** Which nodes and zones should use it (EndpointSlice hints), as whoever wrote the slice decided. */
  readonly forNodes: readonly string[]
  readonly forZones: readonly string[]
  /** What it listens on; named like the Service's ports, with the pod's own numbers. */
  readonly ports: readonly Port[]
}
export type EndpointsRead = { readonly endpoints: readonly Endpoint[]; readonly problems: readonly string[] }

/** Newer than the types that we compile with. */
type Hints = { readonly forZones?: readonly Named[]; readonly forNodes?: readonly Named[] }
type Named = { readonly name: string }

export type SliceRead = {
  /** `namespace/name` of the Service that it is of; undefined where it has no addresses. */
  readonly service: string | undefined
  /** By address. */
  readonly endpoints: readonly Endpoint[]
  /** What tells its endpoints from others at the same addresses. */
  readonly portsKey: string
  readonly problems: readonly string[]
}
/** An EndpointSlice of which nothing is kept but what was read: of tens of thousands there is no room for all. */
export type KeptSlice = { readonly metadata: KeptMetadata; readonly read: SliceRead }
export type AnySlice = EndpointSlice | KeptSlice

const LABEL_SERVICE_NAME = 'kubernetes.io/service-name'
const NOTHING: readonly never[] = []
/** Very many endpoints are on few nodes and listen on few ports. */
const oneText = oneOfEach<string>()
const onePortList = oneOfEach<readonly Port[]>()

export const keptSlice = (slice: EndpointSlice): KeptSlice => ({
  metadata: keptMetadata(slice),
  read: readSlice(slice),
})

export const sliceRead = (slice: AnySlice): SliceRead => ('read' in slice ? slice.read : readSlice(slice))

/** By address. An endpoint that moves from one slice to another stands in both for a moment: the ready entry counts. */
export function endpointsOf(slices: readonly AnySlice[], publishNotReady: boolean): EndpointsRead {
  const [only] = slices
  if (only === undefined) return { endpoints: NOTHING, problems: NOTHING }
  if (slices.length === 1 && !publishNotReady) return sliceRead(only)
  const found = new Map<string, Endpoint>()
  const problems: string[] = []
  for (const slice of slices) {
    const read = sliceRead(slice)
    problems.push(...read.problems)
    for (const written of read.endpoints) {
      const endpoint = publishNotReady && !written.ready ? { ...written, ready: true, draining: false } : written
      const key = `${written.address} ${read.portsKey}`
      const known = found.get(key)
      if (known === undefined || isBetter(endpoint, known)) found.set(key, endpoint)
    }
  }
  const endpoints = [...found].sort(([a], [b]) => compareTexts(a, b)).map(([, endpoint]) => endpoint)
  return { endpoints, problems }
}

const isBetter = (endpoint: Endpoint, known: Endpoint): boolean => !known.ready && (endpoint.ready || endpoint.draining)

/** By address, each once. */
function inOrder(endpoints: readonly Endpoint[]): readonly Endpoint[] {
  const found: Endpoint[] = []
  for (const endpoint of endpoints.toSorted((a, b) => compareTexts(a.address, b.address))) {
    const known = found.at(-1)
    if (known?.address !== endpoint.address) found.push(endpoint)
    else if (isBetter(endpoint, known)) found[found.length - 1] = endpoint
  }
  return trimmed(found)
}

function readSlice(slice: EndpointSlice): SliceRead {
  const { namespace, name: own, labels } = slice.metadata ?? {}
  const name = `endpointslice ${namespace}/${own}`
  const problems: string[] = []
  const read = portsOf(slice.ports ?? [])
  if (read.length < (slice.ports ?? []).length)
    problems.push(`${name}: a port without a number or with an unknown protocol is left out; correct ports`)
  const portsKey = oneText(read.map(({ name, protocol, port }) => `${name}/${protocol}/${port}`).join())
  const ports = onePortList(portsKey, read)
  const family = slice.addressType === 'IPv4' ? 4 : 6
  let bad = 0
  const endpoints: Endpoint[] = []
  for (const { addresses, conditions, nodeName, hostname, zone, hints: written } of slice.endpoints ?? []) {
    // Consumers use the first address only; the others are equal to it (discovery/v1).
    const text = addresses?.[0] ?? ''
    const address = addressOf(text)
    if (address?.family !== family) {
      // One is enough to find it by.
      if (bad++ === 0)
        problems.push(
          `${name}: ${JSON.stringify(text)} is no ${slice.addressType} address: it is left out; correct its endpoints`,
        )
      continue
    }
    const ready = conditions?.ready ?? true
    const hints: Hints = written ?? {}
    endpoints.push({
      family,
      address: address.address,
      node: nodeName ? oneText(nodeName) : undefined,
      hostname: hostname || undefined,
      zone: zone ? oneText(zone) : undefined,
      ready,
      draining: !ready && (conditions?.serving ?? true) && (conditions?.terminating ?? false),
      forNodes: hints.forNodes?.map(({ name }) => oneText(name)) ?? NOTHING,
      forZones: hints.forZones?.map(({ name }) => oneText(name)) ?? NOTHING,
      ports,
    })
  }
  const isAddressed = slice.addressType === 'IPv4' || slice.addressType === 'IPv6'
  return {
    service: isAddressed ? `${namespace}/${labels?.[LABEL_SERVICE_NAME]}` : undefined,
    endpoints: inOrder(endpoints),
    portsKey,
    problems: problems.length === 0 ? NOTHING : problems,
  }
}

/** Without a name or protocol the defaults of the API server hold, which a folder of manifests does not fill in. */
export function portsOf(ports: readonly Pick<EndpointPort, 'name' | 'protocol' | 'port'>[]): readonly Port[] {
  return ports.flatMap(({ name, protocol = 'TCP', port }) =>
    isPort(port) && (protocol === 'TCP' || protocol === 'UDP' || protocol === 'SCTP')
      ? [{ name: name ?? '', protocol, port }]
      : [],
  )
}

export const isPort = (port: number | undefined): port is number => port !== undefined && port > 0 && port < 65536

/** Most addresses are written canonically already, which is seen without reading them in full. */
export function addressOf(text: string): Address | undefined {
  if (ipv4Number(text) !== undefined) return { family: 4, address: text }
  if (!text.includes(':')) return undefined
  if (isIPv6(text) && isPlainlyCanonical(text)) return { family: 6, address: text }
  const address = normalise(text)
  return address === undefined || address.includes('/') ? undefined : { family: 6, address }
}

/** One `::` for two or more groups of zeros, no zero group beside it, no leading zeros, lower case. */
function isPlainlyCanonical(ipv6: string): boolean {
  const groups = ipv6.split(':').filter((group) => group !== '')
  return ipv6.includes('::') && groups.length <= 6 && groups.every((group) => /^[1-9a-f][0-9a-f]*$/.test(group))
}
