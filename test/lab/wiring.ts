// How each host of a lab is made inside: lines for `ip -batch`, and the rules and files of a node.

import { gatewayAddresses, type PlacedPod } from './placement.ts'
import { linkOf, relaysOf } from './names.ts'
import * as plan from './plan.ts'
import type { LabNode, Site, Uplink } from './sites.ts'

/** The core routes between the cloud's LAN, which is a bridge of its own, and the sites' uplinks; nothing private. */
export function coreLines(
  sites: readonly Site[],
  uplinks: Readonly<Record<string, string>>,
  cloudPorts: readonly string[],
): readonly string[] {
  return [
    ...bridge(CLOUD_BRIDGE, cloudPorts, sites[0]!.lans[0]),
    ...sites.flatMap(({ name, nat, lans, uplink }) => {
      const device = uplinks[name]
      if (uplink === undefined || device === undefined) return []
      const { v4, v6 } = uplink.wan
      return [
        ...[v4, v6].flatMap((prefix) => (prefix === undefined ? [] : address(prefix, 1, device))),
        `link set ${device} up`,
        ...lans.flatMap((lan) => [
          ...(v4 !== undefined && nat === 'none' ? [`route add ${lan.v4.cidr} via ${v4.at(2)}`] : []),
          ...(v6 !== undefined ? [`route add ${lan.v6.cidr} via ${v6.at(2)}`] : []),
        ]),
      ]
    }),
  ]
}
export const CLOUD_BRIDGE = 'cloud'

/** A router's device towards each of its site's LANs. */
export const lanDevices = ({ lans }: Site): readonly string[] => lans.map((_, index) => (index === 0 ? 'lan' : 'lan2'))

/** @param portsTo the router's ends of the cables to nodes on one of its LANs. */
export function routerLines(
  site: Site,
  uplink: Uplink,
  portsTo: (lan: number) => readonly string[],
): readonly string[] {
  const bridges = lanDevices(site).flatMap((device, index) => bridge(device, portsTo(index), site.lans[index]!))
  return [...bridges, ...towards(uplink.carrier?.lan ?? uplink.wan)]
}

/** Translates IPv4 once more; IPv6 it routes on. */
export function carrierLines({ lans }: Site, { carrier, wan }: Uplink): readonly string[] {
  const { v4, v6 } = carrier!.lan
  return [
    ...[v4, v6].flatMap((prefix) => (prefix === undefined ? [] : address(prefix, 1, 'lan'))),
    'link set lan up',
    ...(v6 === undefined ? [] : lans.map((lan) => `route add ${lan.v6.cidr} via ${v6.at(2)}`)),
    ...towards(wan),
  ]
}

/** The end of a link to a provider. */
function towards({ v4, v6 }: plan.Wan): readonly string[] {
  const prefixes = [v4, v6].flatMap((prefix) => prefix ?? [])
  return [
    ...prefixes.flatMap((prefix) => address(prefix, 2, 'wan')),
    'link set wan up',
    ...prefixes.map((prefix) => `route add default via ${prefix.at(1)}`),
  ]
}

/** A node on its LAN; with each pod on it a link whose near end has the first addresses of the podCIDRs, as ptp does. */
export function nodeLines(
  id: string,
  node: LabNode,
  { lans }: Site,
  guests: readonly PlacedPod[],
  relays: number,
): readonly string[] {
  const lan = lans[node.lan]!
  const gateways = gatewayAddresses(node.podCidrs)
  const own = [lan.v4, lan.v6].flatMap(
    (prefix, family) => `address add ${node.addresses[family]}/${prefix.length} dev eth0${nodad(prefix.at(1))}`,
  )
  // Deprecated, the second IPv6 address is used by who binds it and never chosen as a source; IPv4's is so by coming second.
  const relay = relaysOf(relays).indexOf(node.name)
  const second = plan.relayHosts(relay)[1]
  const extra =
    relay === -1
      ? []
      : [
          ...address(lan.v4, second, 'eth0'),
          ...address(lan.v6, second, 'eth0').map((line) => `${line} preferred_lft 0`),
        ]
  return [
    ...own,
    ...extra,
    'link set eth0 up',
    `route add default via ${lan.v4.at(1)}`,
    `route add default via ${lan.v6.at(1)}`,
    ...guests.flatMap(({ host, addresses }) => {
      const device = linkOf('pod', id, host)
      return [
        ...gateways.map((gateway) => `address add ${gateway}/${bits(gateway)} dev ${device}${nodad(gateway)}`),
        `link set ${device} up`,
        ...addresses.map((pod) => `route add ${pod}/${bits(pod)} dev ${device}`),
      ]
    }),
  ]
}

export function podLines({ addresses }: PlacedPod, node: LabNode): readonly string[] {
  const gateways = gatewayAddresses(node.podCidrs)
  return [
    ...addresses.map((pod) => `address add ${pod}/${bits(pod)} dev eth0${nodad(pod)}`),
    'link set eth0 up',
    ...addresses.flatMap((pod) => {
      const gateway = gateways.find((candidate) => bits(candidate) === bits(pod))
      return gateway === undefined ? [] : [`route add ${gateway} dev eth0`, `route add default via ${gateway} dev eth0`]
    }),
  ]
}

/** Pods go to the Internet with their node's address and to the cluster with their own, as a CNI's ipMasq has it. */
export function masqueradeRules(podCidrs: readonly string[], cluster: readonly string[]): string {
  const families = [
    { type: 'ipv4_addr', word: 'ip', of: (cidr: string) => !cidr.includes(':') },
    { type: 'ipv6_addr', word: 'ip6', of: (cidr: string) => cidr.includes(':') },
  ].flatMap(({ type, word, of }) => {
    const own = podCidrs.filter(of)
    return own.length === 0 ? [] : [{ type, word, own, all: cluster.filter(of) }]
  })
  if (families.length === 0) return ''
  return `table inet cni {
${families.map(({ type, word, all }) => `  set cluster_${word} { type ${type}; flags interval; auto-merge; elements = { ${all.join(', ')} }; }\n`).join('')}  chain postrouting {
    type nat hook postrouting priority srcnat;
${families.map(({ word, own }) => `    oifname "eth0" ${word} saddr { ${own.join(', ')} } ${word} daddr != @cluster_${word} masquerade\n`).join('')}  }
}
`
}

/**
 * What a kubelet writes for dnsPolicy ClusterFirst and a dnsConfig with `timeout`: without it, a question that is lost
 * while the agent starts again is repeated after 5 s only.
 */
export const podResolvConf = (namespace: string, nameserver: string) =>
  `nameserver ${nameserver}\nsearch ${namespace}.svc.cluster.local svc.cluster.local cluster.local\noptions ndots:5 timeout:1\n`

function bridge(name: string, ports: readonly string[], { v4, v6 }: plan.Lan): readonly string[] {
  return [
    // Without snooping, neighbour discovery does not wait for a querier that is not there.
    `link add ${name} type bridge forward_delay 0 mcast_snooping 0`,
    ...address(v4, 1, name),
    ...address(v6, 1, name),
    ...ports.flatMap((port) => [`link set ${port} master ${name}`, `link set ${port} up`]),
    `link set ${name} up`,
  ]
}

const address = (prefix: plan.Prefix, host: number, device: string): readonly string[] => [
  `address add ${prefix.at(host)}/${prefix.length} dev ${device}${nodad(prefix.at(host))}`,
]
/** Duplicate address detection takes a second in which an address cannot be used. */
const nodad = (ip: string) => (ip.includes(':') ? ' nodad' : '')
const bits = (ip: string) => (ip.includes(':') ? 128 : 32)
