// Services as nft maps: one table per family, whose few rules never change and whose elements are the services.
//
//   services     ClusterIP . protocol . port → goto class-N, where N endpoints serve it; goto refuse where none does
//   endpoints-N  ClusterIP . protocol . port . random number below N → endpoint . port, one element per endpoint
//   takeover     the same key → the agent's DNS; elements lapse unless the living agent renews them
//
// A packet of a new connection costs two lookups, a change of one service a few elements, however many services there
// are (a chain per endpoint, as kube-proxy has it, loads super-linearly). Priority −101 comes before kube-proxy.

import type { Family } from '../lib/cidr.ts'
import { compareCidrs, overlaps, parseCidr } from '../lib/cidr.ts'
import { NFT_TABLE_AGENT as TABLE } from '../lib/owned.ts'
import { keyOfService, type Cluster, type ClusterService, type Endpoint, type Port, type Protocol } from './cluster.ts'
import { reachable, type Here } from './topology.ts'

/** Key → value, as nft prints both; the value of a set's element is empty. */
export type Elements = ReadonlyMap<string, string>
export type Ruleset = {
  readonly family: Family
  /** The address that mesh routes have as `src`, which the node's own calls to other pools must come from. */
  readonly source: string | undefined
  readonly objects: ReadonlyMap<string, Elements>
}

export type RulesetOptions = {
  readonly here: Here
  /** This node's own addresses inside its podCIDRs, at most one per family. */
  readonly sources: readonly { readonly family: Family; readonly address: string }[]
}

/** More endpoints than this are left out, the last by address: an object per distinct count must stay bounded. */
export const ENDPOINTS_MAX = 1000

export function rulesetOf(cluster: Cluster, family: Family, { here, sources }: RulesetOptions): Ruleset {
  const services = new Map<string, string>()
  const clusterIps = new Map<string, string>()
  const hairpin = new Map<string, string>()
  const classes = new Map<number, Map<string, string>>()
  const owners = new Map<string, string>()

  for (const service of cluster.services) {
    if (service.kind !== 'virtual' || !service.proxied) continue
    const ips = service.clusterIps.filter((ip) => ip.family === family)
    if (ips.length === 0) continue
    const endpoints = usable(service, here).filter((endpoint) => endpoint.family === family)
    for (const endpoint of endpoints)
      if (endpoint.node === here.node) hairpin.set(`${endpoint.address} . ${endpoint.address}`, '')
    for (const { address } of ips) {
      const owner = owners.get(address)
      if (owner !== undefined && owner !== keyOfService(service)) continue
      owners.set(address, keyOfService(service))
      clusterIps.set(address, '')
      for (const port of service.ports) {
        const targets = targetsOf(endpoints, port)
        const key = `${address} . ${protocolText[port.protocol]} . ${port.port}`
        services.set(key, targets.length > 0 ? `goto class-${targets.length}` : service.localOnly ? 'drop' : 'goto refuse')
        if (targets.length === 0) continue
        const slots = classes.get(targets.length) ?? new Map<string, string>()
        classes.set(targets.length, slots)
        targets.forEach((target, slot) => slots.set(`${key} . ${slot}`, target))
      }
    }
  }
  const own = cluster.pools.find(({ nodes }) => nodes.some(({ name }) => name === here.node))
  return {
    family,
    source: sources.find((source) => source.family === family)?.address,
    objects: new Map([
      ['services', services],
      ['cluster-ips', clusterIps],
      ['hairpin', hairpin],
      ['mesh', prefixesOf(cluster, family, () => true)],
      ['remote', prefixesOf(cluster, family, (pool) => pool !== own?.name)],
      ...[...classes].sort(([a], [b]) => a - b).map(([count, slots]) => [`endpoints-${count}`, slots] as const),
    ]),
  }
}

/** Ready endpoints, else those that drain, among what topology and the service's own policy leave. */
function usable(service: ClusterService, here: Here): readonly Endpoint[] {
  const allowed = reachable(service, here).filter(({ node }) => !service.localOnly || node === here.node)
  const ready = allowed.filter((endpoint) => endpoint.ready)
  return ready.length > 0 ? ready : allowed.filter((endpoint) => endpoint.draining)
}

function targetsOf(endpoints: readonly Endpoint[], { name, protocol }: Port): readonly string[] {
  const targets = new Set<string>()
  for (const { address, ports } of endpoints)
    for (const port of ports) if (port.name === name && port.protocol === protocol) targets.add(`${address} . ${port.port}`)
  return targets.size <= ENDPOINTS_MAX ? [...targets] : [...targets].slice(0, ENDPOINTS_MAX)
}

/** Prefixes of pods; one that lies in another is left out, since intervals of a set may not overlap. */
function prefixesOf({ pools }: Cluster, family: Family, wanted: (pool: string) => boolean): Elements {
  const cidrs = pools
    .filter(({ name }) => wanted(name))
    .flatMap(({ nodes }) => nodes.flatMap(({ podCidrs }) => podCidrs.flatMap((text) => parseCidr(text) ?? [])))
    .filter((cidr) => cidr.family === family)
    .sort(compareCidrs)
  const outermost: typeof cidrs = []
  for (const cidr of cidrs) if (outermost.length === 0 || !overlaps(outermost.at(-1)!, cidr)) outermost.push(cidr)
  return new Map(outermost.map(({ text }) => [text.replace(/\/(32|128)$/, ''), '']))
}

// === text ===

const tableOf = (family: Family) => `${family === 4 ? 'ip' : 'ip6'} ${TABLE}`
const protocolText: Readonly<Record<Protocol, string>> = { TCP: 'tcp', UDP: 'udp', SCTP: 'sctp' }

/** A marker that tells which of our tables a notice of removal speaks of. */
export const generationChain = (generation: number) => `generation-${generation}`

export type Takeover = {
  /** The ClusterIP that is answered by the agent's own DNS at `to`, both port 53. */
  readonly clusterIp: string
  readonly to: string
  readonly family: Family
}
/** A killed agent's takeover lapses after this; the living one renews it every TAKEOVER_RENEW_MS. */
export const TAKEOVER_TIMEOUT = '3s'

/**
 * The whole table in place of what was there: one transaction, no moment without rules. Written as one block at the end,
 * so that a script that is cut off by the death of its writer is a syntax error and not a shorter script.
 */
export function renderTable({ family, source, objects }: Ruleset, generation: number, takeovers: readonly Takeover[]): string {
  const table = tableOf(family)
  const ip = family === 4 ? 'ip' : 'ip6'
  const address = family === 4 ? 'ipv4_addr' : 'ipv6_addr'
  const service = `${ip} daddr . meta l4proto . th dport`
  const classes = [...objects.keys()].flatMap((name) => classOf(name) ?? [])
  const taken = takeovers.filter((takeover) => takeover.family === family).flatMap(takeoverElements)
  const elements = (name: string) => renderElements(objects.get(name) ?? new Map<string, string>())
  const dispatch = (hook: string) => [
    `  chain nat-${hook} {`,
    `    type nat hook ${hook} priority -101`,
    `    dnat ${ip} addr . port to ${service} map @takeover`,
    `    ${service} vmap @services`,
    `    ${ip} daddr @cluster-ips goto refuse`,
    '  }',
  ]
  return [
    `add table ${table}`,
    `delete table ${table}`,
    `table ${table} {`,
    `  chain ${generationChain(generation)} {`,
    '  }',
    ...renderObject('map takeover', `type ${address} . inet_proto . inet_service : ${address} . inet_service; flags timeout`, taken),
    ...renderObject('map services', `type ${address} . inet_proto . inet_service : verdict`, elements('services')),
    ...renderObject('set cluster-ips', `type ${address}`, elements('cluster-ips')),
    ...renderObject('set hairpin', `typeof ${ip} saddr . ${ip} daddr`, elements('hairpin')),
    ...renderObject('set mesh', `type ${address}; flags interval`, elements('mesh')),
    ...renderObject('set remote', `type ${address}; flags interval`, elements('remote')),
    ...classes.flatMap((count) => [
      ...renderObject(`map endpoints-${count}`, endpointsType(family, count), elements(`endpoints-${count}`)),
      `  chain class-${count} {`,
      `    ${classRule(family, count)}`,
      '  }',
    ]),
    // Runs for the first packet of a connection only, as all of nat does: what is established goes on.
    '  chain refuse {',
    '    meta l4proto tcp reject with tcp reset',
    '    reject',
    '  }',
    ...dispatch('prerouting'),
    ...dispatch('output'),
    '  chain nat-postrouting {',
    '    type nat hook postrouting priority 99',
    `    ct status dnat ct original ${ip} daddr @cluster-ips goto source`,
    '  }',
    '  chain source {',
    // A pod that reaches itself must see an answer from the ClusterIP, which only comes by way of this node.
    `    ${ip} saddr . ${ip} daddr @hairpin masquerade fully-random`,
    `    ${ip} saddr @mesh return`,
    // The node chose its source for the route to the ClusterIP; other pools accept addresses of pods only.
    `    ${ip} daddr @remote ${source === undefined ? 'masquerade' : `snat to ${source}`}`,
    // From outside the cluster: the answer has to come back through this node.
    '    fib saddr type != local masquerade fully-random',
    '  }',
    '}',
  ].join('\n')
}

/**
 * The commands from one ruleset to the other, for one transaction; undefined where the rules themselves differ and the
 * table must be rendered anew. Classes that nobody uses any more stay until then.
 */
export function planChanges(before: Ruleset, after: Ruleset): readonly string[] | undefined {
  if (before.source !== after.source) return undefined
  const table = tableOf(after.family)
  const additions: string[] = []
  const removals: string[] = []
  const created: string[] = []
  for (const name of new Set([...before.objects.keys(), ...after.objects.keys()])) {
    const had = before.objects.get(name)
    const wanted = after.objects.get(name)
    const count = classOf(name)
    if (had === undefined && count !== undefined)
      created.push(
        `add map ${table} ${name} { ${endpointsType(after.family, count)}; }`,
        `add chain ${table} class-${count}`,
        `add rule ${table} class-${count} ${classRule(after.family, count)}`,
      )
    const gone = [...(had ?? [])].filter(([key, value]) => wanted?.get(key) !== value).map(([key]) => key)
    const added = [...(wanted ?? [])].filter(([key, value]) => had?.get(key) !== value)
    if (gone.length > 0) removals.push(`delete element ${table} ${name} { ${gone.join(', ')} }`)
    if (added.length > 0) additions.push(`add element ${table} ${name} { ${renderElements(new Map(added)).join(', ')} }`)
  }
  return [...created, ...removals, ...additions]
}

/** What the kernel holds after planChanges: classes without elements are still there. */
export function applied(before: Ruleset, after: Ruleset): Ruleset {
  const left = [...before.objects.keys()].filter((name) => !after.objects.has(name))
  return { ...after, objects: new Map([...after.objects, ...left.map((name) => [name, new Map<string, string>()] as const)]) }
}

/** Renews for TAKEOVER_TIMEOUT. An element that is there keeps its old timeout when added, so it is deleted between. */
export function renewTakeover(takeover: Takeover): readonly string[] {
  const table = tableOf(takeover.family)
  return takeoverElements(takeover).flatMap((element) => {
    const add = `add element ${table} takeover { ${element} }`
    return [add, `delete element ${table} takeover { ${element.split(' timeout ')[0]} }`, add]
  })
}

/** Hands the ClusterIP back at once; works whether or not it was taken. */
export function endTakeover(takeover: Takeover): readonly string[] {
  return renewTakeover(takeover).filter((_, index) => index % 3 !== 2)
}

function takeoverElements({ clusterIp, to }: Takeover): readonly string[] {
  return ['udp', 'tcp'].map((protocol) => `${clusterIp} . ${protocol} . 53 timeout ${TAKEOVER_TIMEOUT} : ${to} . 53`)
}

/** Slot `key` of a class is picked by a number that is random for each connection. */
const endpointsType = (family: Family, count: number) => {
  const ip = family === 4 ? 'ip' : 'ip6'
  return `typeof ${ip} daddr . meta l4proto . th dport . numgen random mod ${count} : ${ip} daddr . th dport`
}
const classRule = (family: Family, count: number) => {
  const ip = family === 4 ? 'ip' : 'ip6'
  return `dnat ${ip} addr . port to ${ip} daddr . meta l4proto . th dport . numgen random mod ${count} map @endpoints-${count}`
}
const classOf = (name: string) => (name.startsWith('endpoints-') ? Number(name.slice('endpoints-'.length)) : undefined)

const renderElements = (elements: Elements): readonly string[] =>
  [...elements].map(([key, value]) => (value === '' ? key : `${key} : ${value}`))

/** nft 1.0.6 wants a line break or `;` before a closing brace. */
function renderObject(head: string, type: string, elements: readonly string[]): readonly string[] {
  const content = elements.length > 0 ? [`    elements = {`, `      ${elements.join(',\n      ')}`, '    }'] : []
  return [`  ${head} {`, `    ${type}`, ...content, '  }']
}

// === notices ===

/** A table as it was last applied. */
export type Held = { readonly ruleset: Ruleset; readonly generation: number }

/**
 * What a line of `nft monitor destroy` means to us. `lost`: somebody removed our table. `rules-gone`: rules were removed;
 * ours only go with their table. `replaced`: a table of an older generation went, which is our own doing. `doubtful`: an
 * element went that should be there, unless the notice is late and we had taken it out and put it back: look by `command`.
 */
export type Notice = { readonly kind: 'lost' | 'rules-gone' | 'replaced' } | { readonly kind: 'doubtful'; readonly command: string }

export function noticeOf(line: string, held: readonly Held[]): Notice | undefined {
  const [, kind, ip, name, rest] = DELETED.exec(line) ?? []
  const ours = held.find(({ ruleset }) => (ruleset.family === 4 ? 'ip' : 'ip6') === ip)
  if (ours === undefined) return undefined
  if (kind === 'rule') return { kind: 'rules-gone' }
  if (kind === 'chain') {
    if (name === generationChain(ours.generation)) return { kind: 'lost' }
    return name!.startsWith('generation-') ? { kind: 'replaced' } : undefined
  }
  const known = ours.ruleset.objects.get(name!)
  const [element] = /^\{ (.*) \}$/.exec(rest!)?.[1]!.split(', ') ?? []
  const [key, value = ''] = element?.split(' : ') ?? []
  if (key === undefined || known?.get(key) !== value) return undefined
  return { kind: 'doubtful', command: `get element ${tableOf(ours.ruleset.family)} ${name} { ${key} }` }
}
const DELETED = new RegExp(`^delete (chain|element|rule) (ip6?) ${TABLE} (\\S+) ?(.*)$`)
