// The nft table that goes with the agent's routes, for packets between this pool's pods and those of others.
//
//   keep-source   a CNI's masquerade for what leaves its prefix would hide which pod calls; a mapping to the address that is
//                 there already, made first, is the one that counts
//   clamp         TCP learns what the overlay carries
//   overlay-in    the overlay is taken from nodes of this pool only
//   forwarded     counts before and after everybody's forward rules: what enters and does not come out, others dropped

import { NFT_TABLE_ROUTES, VXLAN_DEVICES } from '../lib/owned.ts'
import { parseCidr, type Family } from '../lib/cidr.ts'
import type { Pool } from '../lib/k8s/pools.ts'
import type { Overlay } from './overlay.ts'

export type RouteRules = {
  /** Prefixes of pods. */
  readonly own: readonly string[]
  /** Of other pools. */
  readonly others: readonly string[]
  /** Who may send to the overlay's port; none where there is no overlay. */
  readonly peers: readonly string[]
  readonly vxlanPort: number
}
/** Packets that began a connection between pools. */
export type Forwarded = { readonly entered: number; readonly left: number }

export function routeRulesOf(
  node: string,
  pools: readonly Pool[],
  overlays: readonly Overlay[],
  vxlanPort: number,
): RouteRules {
  const own = pools.find(({ nodes }) => nodes.some(({ name }) => name === node))
  const cidrsOf = (of: readonly Pool[]) => of.flatMap(({ nodes }) => nodes.flatMap(({ podCidrs }) => podCidrs))
  return {
    own: cidrsOf(own === undefined ? [] : [own]),
    others: cidrsOf(pools.filter((pool) => pool !== own)),
    peers: overlays.flatMap(({ peers }) => peers.map(({ endpoint }) => endpoint)),
    vxlanPort,
  }
}

const FAMILIES = [
  { family: 4, word: 'ip', type: 'ipv4_addr' },
  { family: 6, word: 'ip6', type: 'ipv6_addr' },
] as const

/** @returns an nft script that replaces the table in one transaction. */
export function routeTable({ own, others, peers, vxlanPort }: RouteRules): string {
  const sets = FAMILIES.flatMap(({ family, type }) => [
    set(`own${family}`, type, own, family),
    set(`others${family}`, type, others, family),
    set(
      `peers${family}`,
      type,
      peers.map((address) => `${address}/${family === 4 ? 32 : 128}`),
      family,
    ),
  ])
  const each = (rules: (family: (typeof FAMILIES)[number]) => readonly string[]) =>
    FAMILIES.flatMap(rules)
      .map((rule) => `    ${rule}\n`)
      .join('')
  const between = (verdict: (word: string) => string, first = '') =>
    each(({ family, word }) => [
      `${first}${word} daddr @others${family} ${word} saddr @own${family} ${verdict(word)}`,
      `${first}${word} saddr @others${family} ${word} daddr @own${family} ${verdict(word)}`,
    ])
  const devices = Object.values(VXLAN_DEVICES)
    .map((device) => `"${device}"`)
    .join(', ')
  return `add table inet ${NFT_TABLE_ROUTES}
delete table inet ${NFT_TABLE_ROUTES}
table inet ${NFT_TABLE_ROUTES} {
${sets.join('')}  counter entered { }
  counter left { }
  chain keep-source {
    type nat hook postrouting priority srcnat - 1; policy accept;
${between((word) => `snat ${word} to ${word} saddr`)}  }
  chain clamp {
    type filter hook forward priority mangle; policy accept;
    tcp flags syn / syn,rst oifname { ${devices} } tcp option maxseg size set rt mtu
  }
  chain overlay-in {
    type filter hook input priority filter - 10; policy accept;
${each(({ family, word }) => (peers.length === 0 ? [] : [`udp dport ${vxlanPort} ${word} saddr != @peers${family} drop`]))}  }
  chain forward-first {
    type filter hook forward priority -400; policy accept;
${between(() => 'counter name entered', 'ct state new ')}  }
  chain forward-last {
    type filter hook forward priority 400; policy accept;
${between(() => 'counter name left', 'ct state new ')}  }
}
`
}

function set(name: string, type: string, cidrs: readonly string[], family: Family): string {
  const of = [...new Set(cidrs)].filter((text) => parseCidr(text)?.family === family).toSorted()
  const elements = of.length === 0 ? '' : ` elements = { ${of.join(', ')} }`
  return `  set ${name} { type ${type}; flags interval; auto-merge;${elements}; }\n`.replace(';;', ';')
}

/** Whether a listing of the table has all of its rules still. */
export const isComplete = (listing: string, { peers }: RouteRules): boolean =>
  [
    'snat ip to',
    'snat ip6 to',
    'maxseg size set',
    'counter name "entered"',
    'counter name "left"',
    ...(peers.length === 0 ? [] : ['drop']),
  ].every((rule) => listing.includes(rule))

/** A chain that drops what nothing accepts of what is forwarded, and the one where people put what is to be accepted. */
export type Dropper = { readonly family: string; readonly table: string; readonly chain: string; readonly open: string }

/** Docker leaves this chain, which its own jumps to first, to people. */
const DOCKER_USER = 'DOCKER-USER'

/** Reads `nft -j list chains`. */
export function readDroppers(json: string): readonly Dropper[] {
  type Chain = { family: string; table: string; name: string; hook?: string; policy?: string }
  const { nftables } = JSON.parse(json) as { nftables: readonly { chain?: Chain }[] }
  const chains = nftables.flatMap(({ chain }) => chain ?? [])
  return chains
    .filter(({ hook, policy }) => hook === 'forward' && policy === 'drop')
    .map(({ family, table, name: chain }) => {
      const isDocker = chains.some(
        (other) => other.family === family && other.table === table && other.name === DOCKER_USER,
      )
      return { family, table, chain, open: isDocker ? DOCKER_USER : chain }
    })
}

/** What came of connections that began between two looks; undefined where none did. */
export function fateOf(before: Forwarded, now: Forwarded): 'passed' | 'dropped' | undefined {
  if (now.entered <= before.entered) return undefined
  return now.left > before.left ? 'passed' : 'dropped'
}

const PREFIXES_MAX = 4

/** @param own prefixes of this pool's pods. */
export function dropProblem(droppers: readonly Dropper[], own: readonly string[]): string {
  const commands = droppers.flatMap(({ family, table, open }) =>
    own
      .slice(0, PREFIXES_MAX)
      .map((prefix) => ({ prefix, word: prefix.includes(':') ? 'ip6' : 'ip' }))
      .filter(({ word }) => family === 'inet' || family === word)
      .flatMap(({ prefix, word }) =>
        ['saddr', 'daddr'].map((end) => `nft insert rule ${family} ${table} ${open} ${word} ${end} ${prefix} accept`),
      ),
  )
  const by = droppers.map(({ family, table, chain }) => `chain ${chain} of ${family} ${table} (policy drop)`).join(', ')
  const remedy =
    commands.length === 0
      ? 'look for what does with nft list ruleset and iptables -S FORWARD, and accept it there'
      : `accept it there: ${commands.join('; ')}${own.length > PREFIXES_MAX ? '; and so on' : ''}`
  return (
    'forward rules of somebody else drop what pods of this pool and of others say to each other' +
    `${by === '' ? '' : `: ${by}`}; ${remedy}`
  )
}
