// Rules as kube-proxy writes them, by mode, for tests of what stands beside them: one service port, one endpoint.

import { execFileSync } from 'node:child_process'
import type { Family } from '../../lib/cidr.ts'

export type Forward = {
  readonly family: Family
  readonly protocol: 'tcp' | 'udp'
  readonly clusterIp: string
  readonly port: number
  readonly nodeAddress: string
  readonly nodePort: number
  readonly endpoint: { readonly address: string; readonly port: number }
}
export type KubeProxy = {
  readonly mode: 'nftables' | 'iptables' | 'iptables-legacy'
  readonly start: (forwards: readonly Forward[]) => void
  readonly stop: () => void
}

const FAMILIES = [4, 6] as const
const ipOf = (family: Family) => (family === 4 ? 'ip' : 'ip6')
const CLUSTER_CIDR: Readonly<Record<Family, string>> = { 4: '10.244.0.0/16', 6: 'fd00:244::/32' }
const hostPort = ({ address, port }: Forward['endpoint']) =>
  address.includes(':') ? `[${address}]:${port}` : `${address}:${port}`

const nft = (script: string): void => void execFileSync('nft', ['-f', '-'], { input: script })
const deleting = (tables: readonly string[]): string =>
  FAMILIES.flatMap((family) =>
    tables.flatMap((table) => [`add table ${ipOf(family)} ${table}`, `delete table ${ipOf(family)} ${table}`]),
  ).join('\n')

/** The layout of its mode nftables: a chain per endpoint, reached by maps of verdicts. */
function nftables(forwards: readonly Forward[], family: Family): string {
  const ip = ipOf(family)
  const address = family === 4 ? 'ipv4_addr' : 'ipv6_addr'
  const own = forwards.filter((forward) => forward.family === family).map((forward, i) => ({ ...forward, i }))
  const list = (elements: readonly string[]) =>
    elements.length === 0 ? '' : `elements = { ${[...new Set(elements)].join(', ')} }`
  const chains = own.map(
    ({ i, protocol, clusterIp, port, endpoint }) => `
  chain endpoint-${i} {
    ${ip} saddr ${endpoint.address} jump mark-for-masquerade
    meta l4proto ${protocol} dnat to ${hostPort(endpoint)}
  }
  chain service-${i} {
    ${ip} daddr ${clusterIp} ${protocol} dport ${port} ${ip} saddr != ${CLUSTER_CIDR[family]} jump mark-for-masquerade
    numgen random mod 1 vmap { 0 : goto endpoint-${i} }
  }
  chain external-${i} {
    jump mark-for-masquerade
    goto service-${i}
  }`,
  )
  return `
table ${ip} kube-proxy {
  set cluster-ips {
    type ${address}
    ${list(own.map(({ clusterIp }) => clusterIp))}
  }
  set nodeport-ips {
    type ${address}
    ${list(own.map(({ nodeAddress }) => nodeAddress))}
  }
  chain mark-for-masquerade {
    mark set mark or 0x4000
  }${chains.join('')}
  map service-ips {
    type ${address} . inet_proto . inet_service : verdict
    ${list(own.map(({ i, protocol, clusterIp, port }) => `${clusterIp} . ${protocol} . ${port} : goto service-${i}`))}
  }
  map service-nodeports {
    type inet_proto . inet_service : verdict
    ${list(own.map(({ i, protocol, nodePort }) => `${protocol} . ${nodePort} : goto external-${i}`))}
  }
  chain services {
    ${ip} daddr . meta l4proto . th dport vmap @service-ips
    ${ip} daddr @nodeport-ips meta l4proto . th dport vmap @service-nodeports
  }
  chain cluster-ips-check {
    ${ip} daddr @cluster-ips reject
  }
  chain nat-prerouting {
    type nat hook prerouting priority -100
    jump services
  }
  chain nat-output {
    type nat hook output priority -100
    jump services
  }
  chain nat-postrouting {
    type nat hook postrouting priority 100
    mark and 0x4000 == 0 return
    mark set mark xor 0x4000
    masquerade fully-random
  }
  chain filter-forward {
    type filter hook forward priority -110
    ct state new jump cluster-ips-check
  }
  chain filter-output-post-dnat {
    type filter hook output priority -90
    ct state new jump cluster-ips-check
  }
}`
}

/** The chains of its mode iptables, as `iptables-restore` reads them. */
function iptables(forwards: readonly Forward[], family: Family): string {
  const own = forwards.filter((forward) => forward.family === family).map((forward, i) => ({ ...forward, i }))
  const per = (lines: (forward: (typeof own)[number]) => readonly string[]) => own.flatMap(lines)
  return [
    '*nat',
    ...['KUBE-SERVICES', 'KUBE-NODEPORTS', 'KUBE-MARK-MASQ', 'KUBE-POSTROUTING'].map((chain) => `:${chain} - [0:0]`),
    ...per(({ i }) => ['SVC', 'SEP', 'EXT'].map((kind) => `:KUBE-${kind}-${i} - [0:0]`)),
    ...['PREROUTING', 'OUTPUT'].map(
      (chain) => `-A ${chain} -m comment --comment "kubernetes service portals" -j KUBE-SERVICES`,
    ),
    '-A POSTROUTING -m comment --comment "kubernetes postrouting rules" -j KUBE-POSTROUTING',
    '-A KUBE-MARK-MASQ -j MARK --or-mark 0x4000',
    '-A KUBE-POSTROUTING -m mark ! --mark 0x4000/0x4000 -j RETURN',
    '-A KUBE-POSTROUTING -j MARK --xor-mark 0x4000',
    '-A KUBE-POSTROUTING -j MASQUERADE --random-fully',
    ...per(({ i, protocol, clusterIp, port, nodePort, endpoint }) => [
      `-A KUBE-SERVICES -d ${clusterIp} -p ${protocol} -m ${protocol} --dport ${port} -j KUBE-SVC-${i}`,
      `-A KUBE-NODEPORTS -p ${protocol} -m ${protocol} --dport ${nodePort} -j KUBE-EXT-${i}`,
      `-A KUBE-EXT-${i} -j KUBE-MARK-MASQ`,
      `-A KUBE-EXT-${i} -j KUBE-SVC-${i}`,
      `-A KUBE-SVC-${i} ! -s ${CLUSTER_CIDR[family]} -d ${clusterIp} -p ${protocol} -j KUBE-MARK-MASQ`,
      `-A KUBE-SVC-${i} -j KUBE-SEP-${i}`,
      `-A KUBE-SEP-${i} -s ${endpoint.address} -j KUBE-MARK-MASQ`,
      `-A KUBE-SEP-${i} -p ${protocol} -m ${protocol} -j DNAT --to-destination ${hostPort(endpoint)}`,
    ]),
    '-A KUBE-SERVICES -m addrtype --dst-type LOCAL -j KUBE-NODEPORTS',
    'COMMIT',
    '',
  ].join('\n')
}

/** The same chains in the tables that iptables' newer programs make, where those are not installed. */
function iptablesByNft(forwards: readonly Forward[], family: Family): string {
  const ip = ipOf(family)
  const own = forwards.filter((forward) => forward.family === family).map((forward, i) => ({ ...forward, i }))
  const base = (chain: string, priority: number, to: string) =>
    `chain ${chain.toUpperCase()} { type nat hook ${chain} priority ${priority}; policy accept; counter jump ${to}; }`
  return [
    `table ${ip} nat {`,
    'chain KUBE-MARK-MASQ { counter meta mark set mark or 0x4000; }',
    'chain KUBE-POSTROUTING {',
    '  meta mark & 0x4000 != 0x4000 counter return',
    '  counter meta mark set mark xor 0x4000',
    '  counter masquerade fully-random',
    '}',
    ...own.flatMap(({ i, protocol, clusterIp, endpoint }) => [
      `chain KUBE-SEP-${i} {`,
      `  ${ip} saddr ${endpoint.address} counter jump KUBE-MARK-MASQ`,
      `  meta l4proto ${protocol} counter dnat to ${hostPort(endpoint)}`,
      '}',
      `chain KUBE-SVC-${i} {`,
      `  meta l4proto ${protocol} ${ip} saddr != ${CLUSTER_CIDR[family]} ${ip} daddr ${clusterIp} counter jump KUBE-MARK-MASQ`,
      `  counter jump KUBE-SEP-${i}`,
      '}',
      `chain KUBE-EXT-${i} {`,
      '  counter jump KUBE-MARK-MASQ',
      `  counter jump KUBE-SVC-${i}`,
      '}',
    ]),
    'chain KUBE-NODEPORTS {',
    ...own.map(({ i, protocol, nodePort }) => `  ${protocol} dport ${nodePort} counter jump KUBE-EXT-${i}`),
    '}',
    'chain KUBE-SERVICES {',
    ...own.map(
      ({ i, protocol, clusterIp, port }) =>
        `  ${ip} daddr ${clusterIp} ${protocol} dport ${port} counter jump KUBE-SVC-${i}`,
    ),
    '  fib daddr type local counter jump KUBE-NODEPORTS',
    '}',
    base('prerouting', -100, 'KUBE-SERVICES'),
    base('output', -100, 'KUBE-SERVICES'),
    base('postrouting', 100, 'KUBE-POSTROUTING'),
    '}',
  ].join('\n')
}

const LEGACY: Readonly<Record<Family, string>> = { 4: 'iptables-legacy', 6: 'ip6tables-legacy' }
const both = (script: (family: Family) => string): string => FAMILIES.map(script).join('\n')

export const KUBE_PROXIES: readonly KubeProxy[] = [
  {
    mode: 'nftables',
    start: (forwards) => nft(`${deleting(['kube-proxy'])}\n${both((family) => nftables(forwards, family))}`),
    stop: () => nft(deleting(['kube-proxy'])),
  },
  {
    mode: 'iptables',
    start: (forwards) => nft(both((family) => iptablesByNft(forwards, family))),
    stop: () => nft(deleting(['nat'])),
  },
  {
    mode: 'iptables-legacy',
    start: (forwards) => {
      for (const family of FAMILIES)
        execFileSync(`${LEGACY[family]}-restore`, ['--noflush'], { input: iptables(forwards, family) })
    },
    stop: () => {
      for (const family of FAMILIES) for (const what of ['-F', '-X']) execFileSync(LEGACY[family], ['-t', 'nat', what])
    },
  },
]
/** What the mode iptables-legacy needs, from the Debian package iptables. */
export const LEGACY_PROGRAM = LEGACY[4]
