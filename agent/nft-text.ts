// The words of nft for the agent's maps: the whole table, and the difference between two rulesets. nft 1.0.6 is the oldest
// that must understand them.

import { createHash } from 'node:crypto'
import type { Family } from '../lib/cidr.ts'
import type { Changes, ElementChange } from './nft-changes.ts'
import { classOf, ipOf, tableOf, type Elements, type Ruleset } from './nft.ts'
import { takeoverElements, type Takeover } from './takeover.ts'

/**
 * The name of an empty chain, by which a table is known: its layout (a hash of the rules without their elements) says
 * whether a new agent may go on with an old one's table, its serial which of our tables a notice of removal speaks of.
 */
export function markerOf(ruleset: Ruleset, serial: number): string {
  const { family } = ruleset
  const rules = renderTable({ ...ruleset, objects: new Map() }, '', [])
  return `layout-${createHash('sha256').update(rules).update(classRule(family, 1)).digest('hex').slice(0, 12)}-${serial}`
}

/**
 * The whole table in place of what was there: one transaction, no moment without rules. Written as one block at the end,
 * so that a script that is cut off by the death of its writer is a syntax error and not a shorter script.
 */
export function renderTable(
  { family, source, masqueradeOutsiders, objects }: Ruleset,
  marker: string,
  takeovers: readonly Takeover[],
): string {
  const table = tableOf(family)
  const ip = ipOf(family)
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
    `  chain ${marker} {`,
    '  }',
    ...renderObject(
      'map takeover',
      `type ${address} . inet_proto . inet_service : ${address} . inet_service; flags timeout`,
      taken,
    ),
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
    ...(masqueradeOutsiders ? ['    fib saddr type != local masquerade fully-random'] : []),
    '  }',
    '}',
  ].join('\n')
}

/** The transactions from one ruleset to the other, in order. */
export function renderChanges(family: Family, { created, changed, left }: Changes): readonly (readonly string[])[] {
  const table = tableOf(family)
  const classes = created.flatMap((count) => [
    `add map ${table} endpoints-${count} { ${endpointsType(family, count)}; }`,
    `add chain ${table} class-${count}`,
    `add rule ${table} class-${count} ${classRule(family, count)}`,
  ])
  const elements = (changes: readonly ElementChange[]): readonly string[] => [
    ...changes.flatMap(({ object, removed }) =>
      removed.length === 0 ? [] : [`delete element ${table} ${object} { ${removed.join(', ')} }`],
    ),
    ...changes.flatMap(({ object, added }) =>
      added.size === 0 ? [] : [`add element ${table} ${object} { ${renderElements(added).join(', ')} }`],
    ),
  ]
  return [[...classes, ...elements(changed)], elements(left)].filter((commands) => commands.length > 0)
}

/** Slot `key` of a class is picked by a number that is random for each connection. */
const endpointsType = (family: Family, count: number) => {
  const ip = ipOf(family)
  return `typeof ${ip} daddr . meta l4proto . th dport . numgen random mod ${count} : ${ip} daddr . th dport`
}
const classRule = (family: Family, count: number) => {
  const ip = ipOf(family)
  return `dnat ${ip} addr . port to ${ip} daddr . meta l4proto . th dport . numgen random mod ${count} map @endpoints-${count}`
}
const renderElements = (elements: Elements): readonly string[] =>
  [...elements].map(([key, value]) => (value === '' ? key : `${key} : ${value}`))

/** nft 1.0.6 wants a line break or `;` before a closing brace. */
function renderObject(head: string, type: string, elements: readonly string[]): readonly string[] {
  const content = elements.length > 0 ? [`    elements = {`, `      ${elements.join(',\n      ')}`, '    }'] : []
  return [`  ${head} {`, `    ${type}`, ...content, '  }']
}
