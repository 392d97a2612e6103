// A small internet for NAT tests: a site behind a router behind which a cloud stands, with two addresses of each family.
// The router becomes each type of NAT in turn, by rules of its own that share nothing with the lab's.

import { fileURLToPath } from 'node:url'
import { connect, createHost, type Host, type Remote } from '../lib/netns.ts'

export const WAN = '203.0.113.1'
export const CLOUD = ['203.0.113.10', '203.0.113.11', '2001:db8:1::10', '2001:db8:1::11'] as const

export type NatNet = {
  readonly cloud: Host
  readonly router: Host
  readonly site: Host
  /** Runs test/gateway/nat-remote.ts. */
  readonly server: Remote
  readonly client: Remote
  /** Replaces the router's rules and forgets its flows. */
  readonly load: (rules: string) => Promise<void>
  readonly close: () => Promise<void>
}

export async function createNatNet(): Promise<NatNet> {
  const hosts = await Promise.all([createHost(), createHost(), createHost()])
  const [cloud, router, site] = hosts
  const cloudAddresses = CLOUD.map((address) => `${address}/${address.includes(':') ? 64 : 24}`)
  await connect('wan', [cloud, ...cloudAddresses], [router, `${WAN}/24`, '2001:db8:1::1/64'])
  await connect('lan', [router, '192.168.1.1/24', '2001:db8:2::1/64'], [site, '192.168.1.2/24', '2001:db8:2::2/64'])
  await router.sh('sysctl -qw net.ipv4.ip_forward=1 net.ipv6.conf.all.forwarding=1')
  await cloud.sh(`ip route add default via ${WAN} && ip -6 route add default via 2001:db8:1::1`)
  await site.sh('ip route add default via 192.168.1.1 && ip -6 route add default via 2001:db8:2::1')
  const script = fileURLToPath(new URL('nat-remote.ts', import.meta.url))
  const [server, client] = await Promise.all([cloud.start(script), site.start(script)])
  return {
    cloud,
    router,
    site,
    server,
    client,
    load: async (rules) => {
      await router.sh(`nft flush ruleset\nnft -f - <<'END'\n${rules}END\nconntrack -F 2>/dev/null || true`)
    },
    close: async () => {
      await Promise.all(hosts.map((host) => host.close()))
    },
  }
}

const chain = (name: string, hook: string, ...rules: readonly string[]): string =>
  `  chain ${name} {\n    type ${hook};\n${rules.map((rule) => `    ${rule}\n`).join('')}  }\n`
const table = (family: 'ip' | 'inet', ...parts: readonly string[]): string =>
  `table ${family} test {\n${parts.join('')}}\n`

const FORWARD = chain(
  'c_forward',
  'filter hook forward priority filter; policy drop',
  'ct state established,related accept',
  'iifname "lan" accept',
  'ct status dnat accept',
)
const INPUT = chain(
  'c_input',
  'filter hook input priority filter; policy drop',
  'ct state established,related accept',
  'iifname { "lo", "lan" } accept',
  'meta l4proto ipv6-icmp accept',
)
/** What a NAT does to packets on their way out. */
const out = (action: string): string =>
  chain('c_out', 'nat hook postrouting priority srcnat', `oifname "wan" ${action}`)
/** Lets in what comes to a mapped port, whatever conntrack says of its source. */
const cone = (from: string): string =>
  [
    '  map cone { type inet_service : ipv4_addr . inet_service; flags dynamic,timeout; size 65535; timeout 120s; }\n',
    '  set seen { type ipv4_addr . inet_service; flags dynamic,timeout; size 65535; timeout 120s; }\n',
    chain(
      'c_learn',
      'filter hook forward priority -10',
      'oifname "wan" meta l4proto udp update @cone { udp sport : ip saddr . udp sport }',
      'oifname "wan" meta l4proto udp update @seen { ip daddr . udp sport }',
    ),
    chain(
      'c_in',
      'nat hook prerouting priority dstnat',
      `iifname "wan" ip daddr ${WAN} ${from} meta l4proto udp dnat to udp dport map @cone`,
    ),
  ].join('')
/** Sends back inside what goes to a mapped port from inside, and lets it look as if it came from outside. */
const HAIRPIN = [
  chain(
    'c_hairpin_in',
    'nat hook prerouting priority dstnat + 1',
    `iifname "lan" ip daddr ${WAN} meta l4proto udp dnat to udp dport map @cone`,
  ),
  chain(
    'c_hairpin_out',
    'nat hook postrouting priority srcnat - 1',
    `iifname "lan" oifname "lan" ct status dnat snat to ${WAN}`,
  ),
].join('')
const hashed = (keys: string): string =>
  out(`meta l4proto udp snat to ${WAN} : jhash ${keys} mod 20000 seed 0x1234 offset 30000`)

export const RULES = {
  none: '',
  firewall: table('inet', FORWARD, INPUT),
  fullCone: table('ip', cone(''), out('masquerade'), FORWARD, INPUT),
  fullConeHairpin: table('ip', cone(''), out('masquerade'), HAIRPIN, FORWARD, INPUT),
  restricted: table('ip', cone('ip saddr . udp dport @seen'), out('masquerade'), FORWARD, INPUT),
  portRestricted: table('ip', out('masquerade'), FORWARD, INPUT),
  /** Confirms conntrack entries for what nobody asked for, which then take ports from flows to the outside. */
  portRestrictedOpenInput: table('ip', out('masquerade'), FORWARD),
  portNotPreserved: table('ip', hashed('ip saddr . udp sport'), FORWARD, INPUT),
  byAddress: table('ip', hashed('ip saddr . udp sport . ip daddr'), FORWARD, INPUT),
  symmetric: table('ip', hashed('ip saddr . udp sport . ip daddr . udp dport'), FORWARD, INPUT),
  symmetricRandom: table('ip', out('masquerade fully-random'), FORWARD, INPUT),
  oneMapping: table('ip', out(`meta l4proto udp snat to ${WAN} : 41000`), FORWARD, INPUT),
  blocked: table('inet', chain('c_blocked', 'filter hook forward priority -20', 'meta l4proto udp drop')),
} as const

/** @returns the same, for a NAT that forgets a mapping after so many seconds: sooner while nobody has answered. */
export const expiring = (rules: string, unreplied: number, replied: number): string =>
  rules.replaceAll('timeout 120s', `timeout ${replied}s`) +
  (['ip', 'ip6'] as const)
    .map(
      (family) =>
        `table ${family} lifetime {\n` +
        `  ct timeout short {\n    protocol udp\n    l3proto ${family}\n` +
        `    policy = { unreplied : ${unreplied}, replied : ${replied} }\n  }\n` +
        `${chain('c_lifetime', 'filter hook prerouting priority -150', 'meta l4proto udp ct timeout set "short"')}}\n`,
    )
    .join('')

/** @returns the same, where that share of UDP packets is lost each way. */
export const lossy = (rules: string, percent: number): string =>
  `${rules}${table('inet', chain('c_loss', 'filter hook forward priority -5', `meta l4proto udp numgen random mod 100 < ${percent} drop`)).replace('inet test', 'inet loss')}`
