// The words of nft for the agent's maps: the whole table, and the difference between two rulesets. nft 1.0.6 is the oldest
// that must understand them.

import { createHash } from 'node:crypto'
import type { Family } from '../lib/cidr.ts'
import { EMPTY } from '../lib/sorted-list.ts'
import type { Changes, ElementChange, Loaded } from './nft-changes.ts'
import { addRules, MASQUERADE_MARK, markOutsiders, slotElements, type Draft } from './nft-service.ts'
import { classOf, ipOf, mapOf, OBJECTS, tableOf, type Elements, type EndpointClass, type Ruleset } from './nft.ts'

/** The form of what nft-service.ts makes for affinity; another number is another layout. */
const AFFINITY_FORM = 1

/**
 * The name of an empty chain, by which a table is known: its layout (a hash of the rules without their elements) says
 * whether a new agent may go on with an old one's table, its serial which of our tables a notice of removal speaks of.
 */
export function markerOf(ruleset: Ruleset, serial: number): string {
  const classes = (['', 'inside-', 'node-', 'node-inside-'] as const).flatMap((prefix) =>
    renderClass(ruleset.family, { prefix, count: 1 }, [], 0),
  )
  const text = [staticTable(ruleset, ''), ...classes, AFFINITY_FORM].join('\n')
  return `layout-${createHash('sha256').update(text).digest('hex').slice(0, 12)}-${serial}`
}

export type Rendered = {
  readonly script: string
  /** What the kernel has once it is applied, and what is left out is filled in. */
  readonly loaded: Loaded
}

/** A table without services: what chains are always there, and how. */
export const staticTable = (ruleset: Ruleset, marker: string): string =>
  renderTable({ ...ruleset, services: EMPTY, shared: new Map() }, marker).script

/**
 * The whole table in place of what was there: one transaction, no moment without rules. Written as one block at the end,
 * so that a script that is cut off by the death of its writer is a syntax error and not a shorter script.
 * @param isLeftOut of sets and maps: they get room for what services have in them, and nothing else.
 */
export function renderTable(
  ruleset: Ruleset,
  marker: string,
  isLeftOut: (object: string) => boolean = () => false,
): Rendered {
  const { family, shared } = ruleset
  const table = tableOf(family)
  const { elements, counts, affinity, made } = gather(ruleset, isLeftOut)
  const types = objectTypes(family)
  const lines = [
    `add table ${table}`,
    `delete table ${table}`,
    `table ${table} {`,
    `  chain ${marker} {`,
    '  }',
    ...OBJECTS.flatMap((name) => {
      const own = shared.get(name)
      return renderObject(
        ...types[name],
        own === undefined ? (elements.get(name) ?? []) : renderElements(own),
        counts.get(name)?.count,
      )
    }),
    ...[...counts].flatMap(([name, { count }]) => {
      const each = classOf(name)
      return each === undefined ? [] : renderClass(family, each, elements.get(name) ?? [], count)
    }),
    ...affinity,
    ...staticChains(ruleset),
    '}',
  ]
  return { script: lines.join('\n'), loaded: { ruleset, made, unused: new Set() } }
}

/** Of all services, as text: at full size there is no room for both. */
function gather(
  { services, family }: Ruleset,
  isLeftOut: (object: string) => boolean,
): {
  readonly elements: ReadonlyMap<string, readonly string[]>
  /** Of elements, with those that are left out; of a set the same may count twice. */
  readonly counts: ReadonlyMap<string, { readonly count: number }>
  readonly affinity: readonly string[]
  /** Maps of classes, and sets and chains of affinity. */
  readonly made: ReadonlySet<string>
} {
  const maps = new Map<string, string[]>()
  const keys = new Map<string, Set<string>>()
  const counts = new Map<string, { count: number; readonly leftOut: boolean }>()
  const [sets, chains] = [new Map<string, string>(), new Map<string, readonly string[]>()]
  /** @returns whether they are written. */
  const count = (object: string, elements: number): boolean => {
    const own = counts.get(object) ?? { count: 0, leftOut: isLeftOut(object) }
    if (own.count === 0) counts.set(object, own)
    own.count += elements
    return !own.leftOut
  }
  const set = (object: string, key: string, value: string): void => {
    if (count(object, 1)) add(object, key, value)
  }
  const setSlots: Draft['setSlots'] = (map, key, slots) => {
    if (count(map, slots.length)) for (const [each, value] of slotElements(key, slots)) add(map, each, value)
  }
  const add = (object: string, key: string, value: string): void => {
    if (value === '') {
      const own = keys.get(object) ?? new Set()
      keys.set(object, own)
      own.add(key)
    } else {
      const own = maps.get(object) ?? []
      maps.set(object, own)
      own.push(`${key} : ${value}`)
    }
  }
  for (const service of services) addRules({ set, setSlots, sets, chains }, service, family)
  const elements = new Map([...maps, ...[...keys].map(([object, own]) => [object, [...own]] as const)])
  return {
    elements,
    counts,
    affinity: [
      ...[...sets].flatMap(([name, type]) => renderObject(`set ${name}`, type, [])),
      ...[...chains].flatMap(([name, rules]) => renderChain(name, rules)),
    ],
    made: new Set([...counts.keys(), ...sets.keys(), ...chains.keys()].filter((name) => !isAlwaysThere(name))),
  }
}
const isAlwaysThere = (name: string) => (OBJECTS as readonly string[]).includes(name)

const addressType = (family: Family) => (family === 4 ? 'ipv4_addr' : 'ipv6_addr')
const byAddress = (family: Family) => `${ipOf(family)} daddr . meta l4proto . th dport`
const BY_PORT = 'meta l4proto . th dport'

/** Kind, name and type of each. */
function objectTypes(
  family: Family,
): Readonly<Record<(typeof OBJECTS)[number], readonly [head: string, type: string]>> {
  const ip = ipOf(family)
  const address = addressType(family)
  const verdicts = `type ${address} . inet_proto . inet_service : verdict`
  const portVerdicts = 'type inet_proto . inet_service : verdict'
  const prefixes = `type ${address}; flags interval`
  return {
    services: ['map services', verdicts],
    inside: ['map inside', verdicts],
    outside: ['map outside', verdicts],
    restricted: ['map restricted', verdicts],
    'source-ranges': ['set source-ranges', `typeof ${byAddress(family)} . ${ip} saddr; flags interval`],
    'cluster-ips': ['set cluster-ips', `type ${address}`],
    'node-ports': ['map node-ports', portVerdicts],
    'node-inside': ['map node-inside', portVerdicts],
    'node-outside': ['map node-outside', portVerdicts],
    'node-addresses': ['set node-addresses', `type ${address}`],
    hairpin: ['set hairpin', `typeof ${ip} saddr . ${ip} daddr`],
    mesh: ['set mesh', prefixes],
    remote: ['set remote', prefixes],
    'own-pods': ['set own-pods', prefixes],
  }
}

function staticChains({ family, source, masqueradeOutsiders, serviceCidrs }: Ruleset): readonly string[] {
  const ip = ipOf(family)
  const service = byAddress(family)
  const mark = `meta mark set meta mark | ${MASQUERADE_MARK}`
  /** Pods of this node and the node itself may use all endpoints, whoever else only those of this node. */
  const localPolicy = (key: string, prefix: string) => [
    `${ip} saddr @own-pods ${key} vmap @${prefix}inside`,
    `fib saddr type local ${mark} ${key} vmap @${prefix}inside`,
    `${key} vmap @${prefix}outside`,
  ]
  const dispatch = (hook: string) =>
    renderChain(`nat-${hook}`, [
      `type nat hook ${hook} priority -101`,
      `${service} vmap @services`,
      `${ip} daddr @cluster-ips goto refuse`,
      `${ip} daddr @node-addresses ${BY_PORT} vmap @node-ports`,
    ])
  // The node chose its source for the route to the service; other pools accept addresses of pods only.
  const toRemote = `${ip} daddr @remote ${source === undefined ? 'masquerade' : `snat to ${source}`}`
  return [
    // Runs for the first packet of a connection only, as all of nat does: what is established goes on.
    ...renderChain('refuse', ['meta l4proto tcp reject with tcp reset', 'reject']),
    ...renderChain('local-policy', localPolicy(service, '')),
    ...renderChain('node-local-policy', localPolicy(BY_PORT, 'node-')),
    ...renderChain('restricted-policy', [
      `${service} . ${ip} saddr @source-ranges ${service} vmap @restricted`,
      'drop',
    ]),
    ...dispatch('prerouting'),
    ...dispatch('output'),
    ...renderChain('nat-postrouting', [
      'type nat hook postrouting priority 99',
      // A pod that reaches itself must see an answer from the service, which only comes by way of this node.
      `ct status dnat ${ip} saddr . ${ip} daddr @hairpin masquerade fully-random`,
      `meta mark & ${MASQUERADE_MARK} != 0 goto outside-source`,
      `ct status dnat ct original ${ip} daddr @cluster-ips goto source`,
    ]),
    ...renderChain('source', [
      `${ip} saddr @mesh return`,
      toRemote,
      // Where kube-proxy (ipvs) has ClusterIPs on a device, the node's own calls come from them.
      `${ip} saddr @cluster-ips masquerade fully-random`,
      // From outside the cluster: the answer has to come back through this node.
      ...(masqueradeOutsiders ? ['fib saddr type != local masquerade fully-random'] : []),
    ]),
    ...renderChain('outside-source', [
      `meta mark set meta mark & ${inverse(MASQUERADE_MARK)}`,
      toRemote,
      'masquerade fully-random',
    ]),
    ...unallocated(family, serviceCidrs),
  ]
}

/** After all DNAT, since another proxy may serve what has no service of ours; before kube-proxy's own filters. */
const unallocated = (family: Family, cidrs: readonly string[]): readonly string[] =>
  cidrs.length === 0
    ? []
    : (['forward', 'output'] as const).flatMap((hook) =>
        renderChain(`unallocated-${hook}`, [
          `type filter hook ${hook} priority ${hook === 'forward' ? -110 : -90}`,
          `ct state new ${ipOf(family)} daddr { ${cidrs.join(', ')} } drop`,
        ]),
      )

/** What elements lead to: one transaction before theirs. Nothing leads there yet. */
export function renderMade(family: Family, { created, sets, chains, emptied }: Changes): readonly string[] {
  const table = tableOf(family)
  const classes = created.flatMap((name) => {
    const each = classOf(name)!
    return [
      `add map ${table} ${name} { ${endpointsType(family, each)}; }`,
      ...classChains(family, each).flatMap(([chain, rules]) => addChain(table, chain, rules)),
    ]
  })
  return [
    ...classes,
    ...[...sets].map(([name, type]) => `add set ${table} ${name} { ${type}; }`),
    ...[...chains].flatMap(([name, rules]) => addChain(table, name, rules)),
    ...emptied.map((name) => `flush set ${table} ${name}`),
  ]
}

/** A transaction of elements. */
export function renderElementChanges(family: Family, changes: readonly ElementChange[]): readonly string[] {
  const table = tableOf(family)
  return [
    ...changes.flatMap(({ object, removed }) =>
      removed.length === 0 ? [] : [`delete element ${table} ${object} { ${removed.join(', ')} }`],
    ),
    ...changes.flatMap(({ object, added }) =>
      added.size === 0 ? [] : [`add element ${table} ${object} { ${renderElements(added).join(', ')} }`],
    ),
  ]
}

/** The last transaction: what no element leads to any more. */
export function renderDropped(family: Family, { dropped }: Changes): readonly string[] {
  const table = tableOf(family)
  const chains = dropped.filter((name) => !name.startsWith('sticky-'))
  return [
    ...chains.map((name) => `flush chain ${table} ${name}`),
    ...chains.map((name) => `delete chain ${table} ${name}`),
    ...dropped.filter((name) => name.startsWith('sticky-')).map((name) => `delete set ${table} ${name}`),
  ]
}

const addChain = (table: string, name: string, rules: readonly string[]): readonly string[] => [
  `add chain ${table} ${name}`,
  ...rules.map((rule) => `add rule ${table} ${name} ${rule}`),
]

/** Slot `key` of a class is picked by a number that is random for each connection. */
const endpointsType = (family: Family, each: EndpointClass) =>
  `typeof ${slotKey(family, each)} : ${ipOf(family)} daddr . th dport`
const slotKey = (family: Family, { prefix, count }: EndpointClass) =>
  `${prefix.startsWith('node-') ? BY_PORT : byAddress(family)} . numgen random mod ${count}`

/** Chains of a class by name, with their rules. */
export function classChains(
  family: Family,
  each: EndpointClass,
): readonly (readonly [name: string, rules: readonly string[]])[] {
  const { prefix, count } = each
  const pick = `dnat ${ipOf(family)} addr . port to ${slotKey(family, each)} map @${prefix}endpoints-${count}`
  const plain = [`${prefix}class-${count}`, [pick]] as const
  return prefix.endsWith('inside-') ? [plain] : [plain, [`${prefix}masq-${count}`, [markOutsiders(family), pick]]]
}

const renderClass = (
  family: Family,
  each: EndpointClass,
  slots: readonly string[],
  count: number,
): readonly string[] => [
  ...renderObject(`map ${mapOf(each)}`, endpointsType(family, each), slots, count),
  ...classChains(family, each).flatMap(([name, rules]) => renderChain(name, rules)),
]
const renderElements = (elements: Elements): readonly string[] =>
  [...elements].map(([key, value]) => (value === '' ? key : `${key} : ${value}`))
const renderChain = (name: string, rules: readonly string[]): readonly string[] => [
  `  chain ${name} {`,
  ...rules.map((rule) => `    ${rule}`),
  '  }',
]

/** nft 1.0.6 wants a line break or `;` before a closing brace. @param count of all that are to come. */
function renderObject(
  head: string,
  type: string,
  elements: readonly string[],
  count = elements.length,
): readonly string[] {
  const content = elements.length > 0 ? [`    elements = {`, `      ${elements.join(',\n      ')}`, '    }'] : []
  // The kernel fills a table of a known size in half the time. A full one refuses, and then all is loaded anew.
  const isSized = count >= SIZED_MIN && !type.includes('flags')
  const size = isSized ? `; size ${Math.ceil(count * HEADROOM)}` : ''
  return [`  ${head} {`, `    ${type}${size}`, ...content, '  }']
}
/** Elements. */
const SIZED_MIN = 4096
const HEADROOM = 1.5

const inverse = (mark: string) => `0x${(~Number(mark) >>> 0).toString(16)}`
