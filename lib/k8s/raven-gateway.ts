// What Fulmar takes from a Raven Gateway object (raven.openyurt.io/v1beta1): which nodes may be the pool's gateway, where
// the outside reaches them, and on which port they are to listen. Pure. What is wrong is left out and named, and the rest
// counts: one bad object must not part a mesh. The README has a table of all fields.

import { contains, familyOf, normalise, parseCidr } from '../cidr.ts'
import type { RavenGateway } from './objects.ts'
import type { PoolProblem } from './pod-cidrs.ts'

export type GatewayEndpoint = {
  readonly node: string
  /** An address of the node for the outside, with the port where the object has one. */
  readonly public?: { readonly address: string; readonly port?: number }
  /** Where WireGuard is to listen on the node: a firewall or a forwarded port counts on it. */
  readonly listenPort?: number
}
export type GatewayReading = {
  /** Of nodes of the pool, in the order of the object, each node once. */
  readonly endpoints: readonly GatewayEndpoint[]
  /** False where the object says that the pool has no tunnels. */
  readonly tunnels: boolean
  /** Nodes that Raven's own election chose, to be heard where nothing else decides. */
  readonly elected: readonly string[]
}

const EXPOSE_TYPES = ['', 'PublicIP', 'LoadBalancer']
/** Addresses at which nobody outside of a node reaches it. */
const UNREACHABLE = [
  '0.0.0.0/8',
  '127.0.0.0/8',
  '169.254.0.0/16',
  '224.0.0.0/3',
  '::/127',
  'fe80::/10',
  'ff00::/8',
].map((text) => parseCidr(text)!)

/** @param pool also the name of the object. @param nodes of the pool. */
export function readGateway(
  pool: string,
  nodes: readonly string[],
  gateway: RavenGateway | undefined,
  problems: PoolProblem[],
): GatewayReading {
  const spec: Fields = gateway?.spec ?? {}
  const problem = (message: string, node?: string): void =>
    void problems.push({
      nodes: node === undefined ? nodes : [node],
      gateway: pool,
      message: `Gateway ${pool}: ${message}`,
    })
  const exposeType = readExposeType(spec, problem)
  const listed = listOf(spec['endpoints'], 'spec.endpoints', problem).map((fields, index) =>
    readEndpoint(fields, `spec.endpoints[${index}]`, exposeType, problem),
  )
  const endpoints = new Map<string, Endpoint>()
  for (const endpoint of listed) {
    if (endpoint === undefined || endpoints.has(endpoint.node)) continue
    if (nodes.includes(endpoint.node)) endpoints.set(endpoint.node, endpoint)
    else
      problem(
        `endpoint ${endpoint.node} is no node of pool ${pool}: it is left out; correct spec.endpoints or the node's labels`,
        endpoint.node,
      )
  }
  const all = [...endpoints.values()]
  const status: Fields = gateway?.status ?? {}
  return {
    endpoints: all.map(({ node, address, publicPort, port, underNat }) => {
      const outside = publicPort ?? port
      // Behind one NAT two gateways must differ, and what Raven writes where nothing is said is the same for all.
      const shared = underNat && all.some((other) => other.node !== node && other.underNat && other.port === port)
      const listens = port !== undefined && (!underNat || publicPort !== undefined) && !shared
      return {
        node,
        ...(address !== undefined && { public: { address, ...(outside !== undefined && { port: outside }) } }),
        ...(listens && { listenPort: port }),
      }
    }),
    tunnels: readTunnels(spec, pool, problem),
    elected: listOf(status['activeEndpoints'], 'status.activeEndpoints', () => {}).flatMap(({ nodeName, type }) =>
      isTunnel(type) && typeof nodeName === 'string' ? [nodeName] : [],
    ),
  }
}

type Fields = Readonly<Record<string, unknown>>
type Problem = (message: string, node?: string) => void
type Endpoint = {
  readonly node: string
  readonly address: string | undefined
  readonly port: number | undefined
  readonly publicPort: number | undefined
  readonly underNat: boolean
}

function readEndpoint(fields: Fields, path: string, exposeType: string, problem: Problem): Endpoint | undefined {
  const { nodeName: node, type, underNAT } = fields
  if (typeof node !== 'string' || node === '') {
    problem(`${path}.nodeName is missing: the endpoint is left out; set it to the name of a node`)
    return undefined
  }
  if (type === 'proxy') return undefined
  if (!isTunnel(type)) {
    problem(`${path}.type ${show(type)} is neither tunnel nor proxy: endpoint ${node} is left out; correct it`, node)
    return undefined
  }
  const [port, publicPort] = (['port', 'publicPort'] as const).map((name) => {
    const value = fields[name]
    // Go writes 0 where there is none.
    if (value === undefined || value === null || value === 0) return undefined
    if (typeof value === 'number' && Number.isInteger(value) && value > 0 && value < 65_536) return value
    problem(`${path}.${name} ${show(value)} is no port from 1 to 65535: it is ignored; correct it`, node)
    return undefined
  })
  const address = readPublicIp(fields['publicIP'], path, node, problem)
  if (underNAT !== undefined && underNAT !== null && typeof underNAT !== 'boolean')
    problem(`${path}.underNAT ${show(underNAT)} is neither true nor false: taken as false; correct it`, node)
  if (exposeType !== '' && underNAT === true)
    problem(`${path}.underNAT is true with exposeType ${exposeType}: taken as false; correct one of them`, node)
  if (exposeType === 'LoadBalancer' && address === undefined)
    problem(
      `exposeType is LoadBalancer and ${path}.publicIP is missing: peers do not find the balancer; set it to the balancer's address`,
      node,
    )
  return { node, address, port, publicPort, underNat: underNAT === true && exposeType === '' }
}

function readPublicIp(value: unknown, path: string, node: string, problem: Problem): string | undefined {
  if (value === undefined || value === null || value === '') return undefined
  const address = typeof value === 'string' && familyOf(value) !== undefined ? normalise(value) : undefined
  if (address !== undefined && !UNREACHABLE.some((range) => contains(range, address))) return address
  problem(`${path}.publicIP ${show(value)} is no IP address that others reach: it is ignored; correct it`, node)
  return undefined
}

function readExposeType({ exposeType }: Fields, problem: Problem): string {
  if (exposeType === undefined || exposeType === null) return ''
  if (typeof exposeType === 'string' && EXPOSE_TYPES.includes(exposeType)) return exposeType
  problem(`spec.exposeType ${show(exposeType)} is neither PublicIP nor LoadBalancer: it is ignored; correct it`)
  return ''
}

/** None is Raven's way to say that a pool has no tunnels; absent, nothing is said. */
function readTunnels({ tunnelConfig }: Fields, pool: string, problem: Problem): boolean {
  const replicas = isObject(tunnelConfig) ? tunnelConfig['Replicas'] : (tunnelConfig ?? undefined)
  if (replicas === undefined || replicas === 1) return true
  if (replicas === 0)
    problem(`spec.tunnelConfig.Replicas is 0: pool ${pool} has no tunnels; set it to 1 if it should have`)
  else
    problem(
      `spec.tunnelConfig.Replicas ${show(replicas)} is neither 0 nor 1: taken as 1, since one gateway of a pool is active at a time; correct it`,
    )
  return replicas !== 0
}

function listOf(value: unknown, path: string, problem: Problem): readonly Fields[] {
  if (value === undefined || value === null) return []
  if (Array.isArray(value) && value.every(isObject)) return value
  problem(`${path} is no list of endpoints: it is ignored; correct it`)
  return []
}

const isTunnel = (type: unknown): boolean => type === undefined || type === null || type === '' || type === 'tunnel'
const isObject = (value: unknown): value is Fields =>
  typeof value === 'object' && value !== null && !Array.isArray(value)
const show = (value: unknown): string => JSON.stringify(value)
