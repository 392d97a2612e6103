// What the routers of a lab do to packets, as nft rulesets: NATs of every type for IPv4, a stateful firewall for IPv6,
// and the table by which the core cuts sites off. LAN is the device `lan`, the Internet is `wan`.

export const NAT_TYPES = ['full-cone', 'restricted', 'port-restricted', 'symmetric', 'udp-blocked', 'none'] as const
export type NatType = (typeof NAT_TYPES)[number]

/** What sites get in turn when nothing is said; between any two of them hole punching works. */
export const DEFAULT_NATS = ['port-restricted', 'restricted', 'full-cone'] as const satisfies readonly NatType[]

/** @throws Error naming the types there are. */
export function parseNatType(text: string): NatType {
  const type = NAT_TYPES.find((known) => known === text)
  if (type === undefined) throw new Error(`${JSON.stringify(text)} is no NAT type: ${NAT_TYPES.join(', ')}`)
  return type
}

/** The ruleset of a site's router. @param wan4 its public IPv4 address; absent where the underlay has none. */
export function routerRules(type: NatType, wan4: string | undefined): string {
  const tables = [firewall(type)]
  if (wan4 !== undefined && type !== 'none') tables.push(translation(type, wan4))
  return tables.join('')
}

/**
 * Unsolicited packets to the router itself are dropped and not rejected: an answer would confirm their conntrack entry,
 * and a later flow from inside would collide with it and lose its port (measured; real NATs drop too).
 */
function firewall(type: NatType): string {
  const forward = {
    'udp-blocked': ['iifname "lan" tcp dport 443 accept'],
    none: ['accept'],
    'full-cone': ['iifname "lan" accept', 'ct status dnat accept'],
    restricted: ['iifname "lan" accept', 'ct status dnat accept'],
    'port-restricted': ['iifname "lan" accept'],
    symmetric: ['iifname "lan" accept'],
  }[type]
  return `table inet firewall {
  chain forward {
    type filter hook forward priority filter; policy drop;
    ct state established,related accept
${forward.map((rule) => `    ${rule}\n`).join('')}  }
  chain input {
    type filter hook input priority filter; policy drop;
    ct state established,related accept
    iifname { "lo", "lan" } accept
    meta l4proto ipv6-icmp accept
  }
}
`
}

/** A mapping lives this long after its last packet to the outside, as conntrack's own unreplied streams nearly do. */
const MAPPING_LIFETIME = '120s'

/**
 * Linux' masquerade keeps the port and filters by address and port. Cones are made by remembering each mapping as it
 * leaves (its port as conntrack gave it) and sending what comes back to that port, from anyone (full cone) or from
 * addresses that were sent to (restricted), to where the mapping began.
 */
function translation(type: Exclude<NatType, 'none'>, wan4: string): string {
  const masquerade = type === 'symmetric' ? 'masquerade fully-random' : 'masquerade'
  const cone = type === 'full-cone' || type === 'restricted'
  const known = type === 'restricted' ? 'ip saddr . udp dport @contacted ' : ''
  return `table ip nat {
${
  cone
    ? `  map mappings { type inet_service : ipv4_addr . inet_service; flags dynamic,timeout; size 65535; timeout ${MAPPING_LIFETIME}; }
  set contacted { type ipv4_addr . inet_service; flags dynamic,timeout; size 65535; timeout ${MAPPING_LIFETIME}; }
  chain learn {
    type filter hook postrouting priority srcnat + 10;
    oifname "wan" meta l4proto udp ct direction original update @mappings { ct reply proto-dst : ct original ip saddr . ct original proto-src }
    oifname "wan" meta l4proto udp ct direction original update @contacted { ip daddr . ct reply proto-dst }
    oifname "wan" meta l4proto udp ct direction reply update @mappings { ct original proto-dst : ct reply ip saddr . ct reply proto-src }
  }
  chain prerouting {
    type nat hook prerouting priority dstnat;
    iifname "wan" ip daddr ${wan4} ${known}meta l4proto udp dnat to udp dport map @mappings
  }
`
    : ''
}  chain postrouting {
    type nat hook postrouting priority srcnat;
    oifname "wan" ${masquerade}
  }
}
`
}

/** What can be cut off a site: its UDP while TCP goes on, everything, or what goes to and from the cloud only. */
export const CUTS = ['udp', 'wan', 'relay'] as const
export type Cut = (typeof CUTS)[number]
export const setOfCut = (cut: Cut) => `cut_${cut}`

/** The core's table: its sets hold the devices of cut sites, so the kernel itself is what remembers cuts. */
export function coreRules(cloudDevice: string): string {
  return `table inet cuts {
${CUTS.map((cut) => `  set ${setOfCut(cut)} { type ifname; }\n`).join('')}  chain forward {
    type filter hook forward priority filter;
    iifname @cut_wan drop
    oifname @cut_wan drop
    meta l4proto udp iifname @cut_udp drop
    meta l4proto udp oifname @cut_udp drop
    iifname @cut_relay oifname "${cloudDevice}" drop
    iifname "${cloudDevice}" oifname @cut_relay drop
  }
}
`
}
