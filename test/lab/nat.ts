// What the routers of a lab do to packets, as nft rulesets: NATs of every type for IPv4, a stateful firewall for IPv6,
// and the table by which the core cuts sites off. LAN is the device `lan`, the Internet is `wan`.

export const NAT_TYPES = [
  'full-cone',
  'restricted',
  'port-restricted',
  'first-packet-race',
  'port-not-preserved',
  'address-dependent',
  'symmetric',
  'symmetric-hash',
  'symmetric-sequential',
  'udp-blocked',
  'none',
] as const
export type NatType = (typeof NAT_TYPES)[number]
/** A NAT in text: `TYPE`, with parameters `TYPE/expire=4s` or `TYPE/seed=7`, or two of them in a row, `INNER+OUTER`. */
export type NatName = NatType | `${NatType}${'/' | '+'}${string}`

/** One NAT between a site and the Internet. */
export type Nat = {
  readonly type: NatType
  /** Which of the many mappings of its type a NAT has. */
  readonly seed: number
  /** After so long without a packet a UDP mapping is gone. */
  readonly expireSeconds: number | undefined
}

/** What sites get in turn when nothing is said; between any two of them hole punching works. */
export const DEFAULT_NATS = ['port-restricted', 'restricted', 'full-cone'] as const satisfies readonly NatType[]

/** Types whose mapping is a function of what it maps, or of how many came before. */
const SEEDED: readonly NatType[] = ['port-not-preserved', 'address-dependent', 'symmetric-hash', 'symmetric-sequential']
const DOUBLE = 'double'
const DOUBLE_NAT = 'port-restricted+port-restricted'
const DEFAULT_SEED = 0x1234
const SEED_MAX = 2 ** 31 - 1
const EXPIRE_MAX_S = 3600

export const NAT_SYNTAX = `TYPE, TYPE/seed=N (${SEEDED.join(', ')}), TYPE/expire=Ns, INNER+OUTER or ${DOUBLE}`

/** @throws Error saying what is wrong and what there is. */
export function parseNatName(text: string): NatName {
  const name = text === DOUBLE ? DOUBLE_NAT : text
  natsOf(name as NatName)
  return name as NatName
}

/** The one or two NATs behind which a site is, its own first. @throws Error */
export function natsOf(name: NatName): readonly [Nat] | readonly [Nat, Nat] {
  const nats = name.split('+').map(parseNat)
  const [inner, outer, ...more] = nats as [Nat, ...Nat[]]
  if (outer === undefined) return [inner]
  if (more.length > 0) throw new Error(`${JSON.stringify(name)}: ${nats.length} NATs in a row; there may be two`)
  if (nats.some(({ type }) => type === 'none'))
    throw new Error(`${JSON.stringify(name)}: none is no NAT that another could stand before or behind`)
  return [inner, outer]
}

function parseNat(text: string): Nat {
  const [word, ...parameters] = text.split('/')
  const type = NAT_TYPES.find((known) => known === word)
  if (word === DOUBLE) throw new Error(`${DOUBLE} is two NATs already, ${DOUBLE_NAT}: it stands alone`)
  if (type === undefined) throw new Error(`${JSON.stringify(word)} is no NAT type: ${NAT_TYPES.join(', ')}, ${DOUBLE}`)
  let nat: Nat = { type, seed: DEFAULT_SEED, expireSeconds: undefined }
  for (const parameter of parameters) {
    const [, key, digits] = /^(seed|expire)=(\d{1,10})s?$/.exec(parameter) ?? []
    const value = Number(digits)
    if (key === undefined)
      throw new Error(`${JSON.stringify(parameter)} is no parameter of a NAT: seed=NUMBER or expire=SECONDS`)
    if (key === 'seed') {
      if (!SEEDED.includes(type)) throw new Error(`${type} has no seed; ${SEEDED.join(', ')} have`)
      if (value > SEED_MAX) throw new Error(`seed=${digits}: is over ${SEED_MAX}`)
      nat = { ...nat, seed: value }
    } else {
      if (type === 'none' || type === 'udp-blocked') throw new Error(`${type} has no mapping that could expire`)
      if (value < 1 || value > EXPIRE_MAX_S) throw new Error(`expire=${digits}: is not 1 to ${EXPIRE_MAX_S} seconds`)
      nat = { ...nat, expireSeconds: value }
    }
  }
  return nat
}

/**
 * The ruleset of a router.
 * @param wan4 its IPv4 address on `wan`; absent where the underlay has none.
 * @param firewall6 whether IPv6 has a stateful firewall.
 * @param lans its devices towards the site.
 */
export function routerRules(
  nat: Nat,
  wan4: string | undefined,
  firewall6 = true,
  lans: readonly string[] = [LAN],
): string {
  const tables = [firewall(nat, firewall6, lans)]
  if (wan4 !== undefined && nat.type !== 'none') tables.push(translation(nat, wan4))
  return tables.join('')
}

/**
 * Unsolicited packets to the router itself are dropped and not rejected: an answer would confirm their conntrack entry,
 * and a later flow from inside would collide with it and lose its port (measured; real NATs drop too). To accept them
 * is what makes a NAT one with a first-packet race.
 */
function firewall({ type, expireSeconds }: Nat, firewall6: boolean, lans: readonly string[]): string {
  const within = lans.length > 1 ? [`iifname ${anyOf(lans)} oifname ${anyOf(lans)} accept`] : []
  const fromInside = `iifname ${anyOf(lans)} accept`
  const forward = {
    'udp-blocked': [`iifname ${anyOf(lans)} tcp dport 443 accept`],
    none: ['accept'],
    'full-cone': [fromInside, 'ct status dnat accept'],
    restricted: [fromInside, 'ct status dnat accept'],
    'port-restricted': [fromInside],
    'first-packet-race': [fromInside],
    'port-not-preserved': [fromInside],
    'address-dependent': [fromInside],
    symmetric: [fromInside],
    'symmetric-hash': [fromInside],
    'symmetric-sequential': [fromInside],
  }[type]
  const open6 = firewall6 || type === 'udp-blocked' ? '' : '    meta nfproto ipv6 accept\n'
  return `table inet firewall {
${expireSeconds === undefined ? '' : expiry(expireSeconds)}  chain forward {
    type filter hook forward priority filter; policy drop;
    ct state established,related accept
${open6}${[...within, ...forward].map((rule) => `    ${rule}\n`).join('')}  }
  chain input {
    type filter hook input priority filter; policy ${type === 'first-packet-race' ? 'accept' : 'drop'};
    ct state established,related accept
    iifname ${anyOf(['lo', ...lans])} accept
    meta l4proto ipv6-icmp accept
  }
}
`
}

const LAN = 'lan'
const anyOf = (devices: readonly string[]) =>
  devices.length === 1 ? `"${devices[0]}"` : `{ ${devices.map((device) => `"${device}"`).join(', ')} }`

/** Before connection tracking confirms a flow, it is told how long to keep it. */
const expiry = (seconds: number): string =>
  `${(['ip', 'ip6'] as const)
    .map(
      (family) => `  ct timeout short_${family} {
    protocol udp; l3proto ${family}; policy = { unreplied : ${seconds}, replied : ${seconds} };
  }
`,
    )
    .join('')}  chain expire {
    type filter hook prerouting priority mangle;
    meta nfproto ipv4 meta l4proto udp ct timeout set "short_ip"
    meta nfproto ipv6 meta l4proto udp ct timeout set "short_ip6"
  }
`

/** A mapping lives this long after its last packet to the outside, as conntrack's own unreplied streams nearly do. */
const MAPPING_LIFETIME_S = 120

/**
 * Linux' masquerade keeps the port and filters by address and port. Cones are made by remembering each mapping as it
 * leaves (its port as conntrack gave it) and sending what comes back to that port, from anyone (full cone) or from
 * addresses that were sent to (restricted), to where the mapping began.
 */
function translation({ type, seed, expireSeconds = MAPPING_LIFETIME_S }: Nat, wan4: string): string {
  const cone = type === 'full-cone' || type === 'restricted'
  const known = type === 'restricted' ? 'ip saddr . udp dport @contacted ' : ''
  return `table ip nat {
${
  cone
    ? `  map mappings { type inet_service : ipv4_addr . inet_service; flags dynamic,timeout; size 65535; timeout ${expireSeconds}s; }
  set contacted { type ipv4_addr . inet_service; flags dynamic,timeout; size 65535; timeout ${expireSeconds}s; }
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
${sourceTranslation(type, seed, wan4)
  .map((rule) => `    oifname "wan" ${rule}\n`)
  .join('')}  }
}
`
}

/** Ports of a NAT that chooses them: of a hash of so much of the flow as its type looks at, or one after the other. */
function sourceTranslation(type: NatType, seed: number, wan4: string): readonly string[] {
  const hashed = (keys: string) =>
    `meta l4proto udp snat to ${wan4} : jhash ${keys} mod ${PORTS} seed ${seed} offset ${FIRST_PORT}`
  switch (type) {
    case 'symmetric':
      return ['masquerade fully-random']
    case 'port-not-preserved':
      return [hashed('ip saddr . udp sport'), 'masquerade']
    case 'address-dependent':
      return [hashed('ip saddr . udp sport . ip daddr'), 'masquerade']
    case 'symmetric-hash':
      return [hashed('ip saddr . udp sport . ip daddr . udp dport'), 'masquerade']
    case 'symmetric-sequential': {
      // A number used as a port has its bytes swapped; a map's values have not.
      const ports = Array.from(
        { length: SEQUENTIAL_PORTS },
        (_, index) => `${index} : ${FIRST_PORT + ((seed + index) % SEQUENTIAL_PORTS)}`,
      )
      return [
        `meta l4proto udp snat to ${wan4} : numgen inc mod ${SEQUENTIAL_PORTS} map { ${ports.join(', ')} }`,
        'masquerade',
      ]
    }
    default:
      return ['masquerade']
  }
}
const FIRST_PORT = 30_000
const PORTS = 20_000
const SEQUENTIAL_PORTS = 1_000

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
