// What a lab can be asked to be: the flags of `up`, each mistake named with its remedy.

import { list, type Option, type Values } from '../../lib/config.ts'
import { flag, integer, optionalText } from '../../lib/config.ts'
import { UsageError } from '../../lib/net/lifetime.ts'
import { CLOUD, CORE, nodeOf, parseId, parsePoolName, repeated, routerOf } from './names.ts'
import type { Lab } from './lab.ts'
import { NAT_SYNTAX, NAT_TYPES, parseNatName, type NatName } from './nat.ts'
import { NODES_MAX, RELAYS_MAX, SITES_MAX, UNDERLAYS, type Underlay } from './plan.ts'

/** Of generated pools. */
export const DEFAULT_NODES = 2

/** How a lab is asked for in code; the flags of `up` are the same. */
export type LabOptions = {
  readonly id?: string | undefined
  /** Pools of generated manifests; without it and without `manifests`, the shop of test/lab/shop. */
  readonly pools?: readonly string[] | undefined
  /** Nodes of each of those pools. */
  readonly nodes?: number | undefined
  /** Gateways of each pool: the first is active, the others stand by. */
  readonly gateways?: number | undefined
  /** Relays, each on a machine of its own in the cloud. */
  readonly relays?: number | undefined
  readonly nat?: ReadonlyMap<string, NatName> | undefined
  /** Whether routers have a stateful firewall for IPv6; they have if nothing is said. */
  readonly firewall6?: boolean | undefined
  /** A folder of objects to make the lab from, and to serve. */
  readonly manifests?: string | undefined
  readonly underlay?: Underlay | undefined
  readonly overlapLans?: boolean | undefined
  /** Pools whose nodes are on two LANs in turn, joined by the site's router. */
  readonly splitLans?: readonly string[] | undefined
  /** Flags of every agent. */
  readonly agentFlags?: readonly string[] | undefined
  /** Flags of every gateway, such as `--warm all`. */
  readonly gatewayFlags?: readonly string[] | undefined
  /** Flags of the relay, beside those that a lab gives it. */
  readonly relayFlags?: readonly string[] | undefined
  /** Whether nodes have kubelets, for kubectl logs, exec and the like. */
  readonly kubelets?: boolean | undefined
  /** The program that relays, agents and gateways are started from, where it is not this checkout's: another version's. */
  readonly fulmar?: string | undefined
  /** Whether relay, agents and gateways run as deploy/chart says, from the image's files. */
  readonly fromChart?: boolean | undefined
  /** Makes the hosts what they should be before anything starts on them. */
  readonly prepare?: ((lab: Lab) => Promise<void>) | undefined
  /** Whether a process that dies is started again. */
  readonly restart?: boolean | undefined
  /** How much of it to start; `hosts` has pods but none of our daemons, `nodes` all but gateways. */
  readonly until?: 'hosts' | 'nodes' | 'all' | undefined
}

const pools = (value: string): readonly string[] => {
  const names = list(parsePoolName)(value)
  const [twice] = repeated(names)
  if (twice !== undefined) throw new Error(`pool ${twice} is there twice: name each once`)
  if (names.length > SITES_MAX) throw new Error(`${names.length} pools: a lab has room for ${SITES_MAX}`)
  return names
}

const nats = (value: string): ReadonlyMap<string, NatName> => {
  const pairs = list((item): [string, NatName] => {
    const [, pool, nat] = /^([^=]+)=(.+)$/.exec(item) ?? []
    if (pool === undefined || nat === undefined)
      throw new Error(`${JSON.stringify(item)} is not POOL=TYPE, such as north=symmetric`)
    return [pool, parseNatName(nat)]
  })(value)
  const [twice] = repeated(pairs.map(([pool]) => pool))
  if (twice !== undefined) throw new Error(`pool ${twice} is there twice: give it one type`)
  return new Map(pairs)
}

const underlay = (value: string): Underlay => {
  const known = UNDERLAYS.find((name) => name === value)
  if (known === undefined) throw new Error(`is no underlay: ${UNDERLAYS.join(', ')}`)
  return known
}

const flagOption = (name: string, doc: string) =>
  ({ name, doc, fallback: 'false', parse: flag }) satisfies Option<boolean>

export const ID = {
  name: 'id',
  doc: 'which lab',
  value: 'ID',
  fallback: 'lab',
  parse: parseId,
} satisfies Option<string>
export const JSON_FLAG = flagOption('json', 'one JSON object on stdout')

export const UP = {
  id: ID,
  pools: {
    name: 'pools',
    doc: 'sites to generate, such as north,south; the cloud is always there',
    value: 'NAME,…',
    fallback: '',
    parse: pools,
  } satisfies Option<readonly string[]>,
  nodes: {
    name: 'nodes',
    doc: `nodes in each of --pools (default ${DEFAULT_NODES})`,
    value: 'N',
    fallback: '',
    parse: (value) => (value === '' ? 0 : integer(1, NODES_MAX)(value)),
  } satisfies Option<number>,
  gateways: {
    name: 'gateways',
    doc: 'gateways of each pool, of which one is active',
    value: 'N',
    fallback: '1',
    parse: integer(1, NODES_MAX),
  } satisfies Option<number>,
  relays: {
    name: 'relays',
    doc: 'relays in the cloud, each on a machine of its own: cloud, relay2, …',
    value: 'N',
    fallback: '1',
    parse: integer(1, RELAYS_MAX),
  } satisfies Option<number>,
  nat: {
    name: 'nat',
    doc: `NAT by pool, as ${NAT_SYNTAX}; types: ${NAT_TYPES.join(', ')}`,
    value: 'POOL=NAT,…',
    fallback: '',
    parse: nats,
  } satisfies Option<ReadonlyMap<string, NatName>>,
  manifests: {
    name: 'manifests',
    doc: 'make the lab from the objects in this folder, instead of --pools',
    value: 'DIR',
    fallback: '',
    parse: optionalText,
  } satisfies Option<string | undefined>,
  underlay: {
    name: 'underlay',
    doc: 'IP versions of the Internet between sites: v4, v6 or dual',
    value: 'V',
    fallback: 'v4',
    parse: underlay,
  } satisfies Option<Underlay>,
  overlapLans: flagOption('overlap-lans', 'all sites have 192.168.1.0/24'),
  splitLans: {
    name: 'split-lans',
    doc: "pools whose nodes are on two LANs in turn, joined by the site's router: they need VXLAN",
    value: 'POOL,…',
    fallback: '',
    parse: list(parsePoolName),
  } satisfies Option<readonly string[]>,
  firewall6: {
    name: 'firewall6',
    doc: 'stateful firewalls for IPv6 at the sites: on or off',
    value: 'ON|OFF',
    fallback: 'on',
    parse: (value) => {
      if (value !== 'on' && value !== 'off') throw new Error('is neither on nor off')
      return value === 'on'
    },
  } satisfies Option<boolean>,
  warm: flagOption('warm', 'gateways keep all paths up, with traffic or without'),
  coldAfter: {
    name: 'cold-after',
    doc: 'seconds without traffic after which gateways send nothing to keep a path up (default 600)',
    value: 'SECONDS',
    fallback: '',
    parse: (value) => (value === '' ? 0 : integer(1, 1_000_000)(value)),
  } satisfies Option<number>,
  fromChart: flagOption(
    'from-chart',
    'relay, agents and gateways as deploy/chart has them, from the image, joined by tokens of their pods; needs helm',
  ),
  noRestart: flagOption('no-restart', 'leave processes that die dead'),
  noDaemons: flagOption('no-daemons', 'hosts, NATs and pods only'),
  detach: flagOption('detach', 'return when everything runs'),
  json: JSON_FLAG,
}

/** @throws UsageError for flags that do not go together. */
export function labOptionsOf(values: Values<typeof UP>): LabOptions {
  const { pools: names, nodes, manifests, warm, coldAfter, noRestart, noDaemons, ...rest } = values
  const errors = [
    ...(manifests !== undefined && names.length > 0 ? ['--manifests and --pools: give one of them'] : []),
    ...(nodes > 0 && names.length === 0 ? ['--nodes: counts the nodes of --pools, which is not given'] : []),
    ...(names.length > 0 && values.gateways > (nodes || DEFAULT_NODES)
      ? [`--gateways ${values.gateways}: a pool has ${nodes || DEFAULT_NODES} nodes; give --nodes ${values.gateways}`]
      : []),
  ]
  if (errors.length > 0) throw new UsageError(errors.join('\n'))
  return {
    ...rest,
    ...(names.length > 0 ? { pools: names } : {}),
    ...(nodes > 0 ? { nodes } : {}),
    ...(manifests === undefined ? {} : { manifests }),
    gatewayFlags: [...(warm ? ['--warm', 'all'] : []), ...(coldAfter > 0 ? ['--cold-after', String(coldAfter)] : [])],
    restart: !noRestart,
    kubelets: true,
    until: noDaemons ? 'hosts' : 'all',
  }
}

/** @throws UsageError if two hosts of generated pools would have one name. */
export function generatedPools(
  names: readonly string[],
  nodes: number,
): readonly { readonly name: string; readonly nodes: readonly string[] }[] {
  const generated = names.map((name) => ({
    name,
    nodes: Array.from({ length: nodes }, (_, index) => nodeOf(name, index + 1)),
  }))
  const hosts = [CORE, CLOUD, ...generated.flatMap((pool) => [routerOf(pool.name), ...pool.nodes])]
  const [twice] = repeated(hosts)
  if (twice !== undefined)
    throw new UsageError(`--pools ${names.join(',')}: two hosts would be called ${twice}: choose other names`)
  return generated
}
