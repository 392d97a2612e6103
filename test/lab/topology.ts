// A lab as a value: its hosts, links, addresses, routes and rules, all derived from Kubernetes objects and options.
//
//            cloud ── core ─┬─ wan NORTH-nat lan ─┬─ north1 ─┬─ north1-web
//                           └─ wan SOUTH-carrier lan ─ wan SOUTH-nat lan ─ south1

import { normalise } from '../../lib/cidr.ts'
import type { Objects } from './folder.ts'
import { CORE, cgroupOf, linkOf, relaysOf, repeated } from './names.ts'
import { coreRules, routerRules, type Nat, type NatName } from './nat.ts'
import { placePods, type PlacedPod } from './placement.ts'
import * as plan from './plan.ts'
import { planSites, type LabNode, type Site, type SiteOptions, type Uplink } from './sites.ts'
import {
  carrierLines,
  CLOUD_BRIDGE,
  coreLines,
  lanDevices,
  masqueradeRules,
  nodeLines,
  podLines,
  podResolvConf,
  routerLines,
} from './wiring.ts'

export type TopologyOptions = SiteOptions & { readonly id: string }

export type LabPool = {
  readonly name: string
  readonly nat: NatName
  /** Names of nodes. */
  readonly nodes: readonly string[]
  /** The node that runs the pool's gateway; empty for a cloud without nodes. */
  readonly gateway: string
  /** All nodes that run one; `gateway` is the first. */
  readonly gateways: readonly string[]
  /** Absent for the cloud. */
  readonly router?: string
  /** The NAT between the router and the Internet, where there are two. */
  readonly carrier?: string
  /** Addresses that the site has on the Internet. */
  readonly wan: readonly string[]
  /** The core's device towards the site. */
  readonly uplink?: string
}
export type LabRelay = {
  readonly host: string
  readonly addresses: readonly string[]
  readonly stun: readonly string[]
  readonly url: string
}
/** One network namespace and how to make it. */
export type LabHost = {
  readonly name: string
  readonly kind: 'core' | 'router' | 'node' | 'pod'
  /** Relative to the root of cgroup2. */
  readonly cgroup: string
  /** Lines for `ip -batch` inside. */
  readonly ip: readonly string[]
  /** An nft ruleset; empty for none. */
  readonly nft: string
  readonly resolvConf: string
}
export type LinkEnd = { readonly host: string; readonly device: string }
export type LabLink = readonly [LinkEnd, LinkEnd]

export type Topology = {
  readonly id: string
  readonly underlay: plan.Underlay
  /** The first, which nodes join by. */
  readonly relay: LabRelay
  readonly relays: readonly LabRelay[]
  readonly pools: readonly LabPool[]
  readonly nodes: readonly LabNode[]
  readonly pods: readonly PlacedPod[]
  readonly hosts: readonly LabHost[]
  readonly links: readonly LabLink[]
  /** What was left out and why. */
  readonly problems: readonly string[]
}
export type { LabNode, PlacedPod }

/** Where there is no Service kube-system/kube-dns, pods ask the node-local address that Kubernetes uses too. */
const NODE_LOCAL_DNS = '169.254.20.53'

/** @throws Error where two names that the lab makes are the same. */
export function planTopology(objects: Objects, options: TopologyOptions): Topology {
  const { id, underlay, relays: relayCount = 1 } = options
  const { sites, problems: siteProblems } = planSites(objects, options)
  const [cloud] = sites as [Site]
  const uplinks = Object.fromEntries(
    sites.flatMap(({ name, uplink }) => (uplink ? [[name, linkOf('site', id, uplink.router)]] : [])),
  )
  const nodes = sites.flatMap((site) => site.nodes)
  const machines = withRelays(sites, relayCount)
  const taken = new Set([
    CORE,
    ...machines.map(({ node }) => node.name),
    ...sites.flatMap(({ uplink }) => (uplink ? routersOf(uplink) : [])),
  ])
  const { pods, problems: podProblems } = placePods(objects.pods, objects.endpointSlices, nodes, taken)
  const guests = pods.filter(({ hostNetwork }) => !hostNetwork)
  const links: readonly LabLink[] = [
    ...sites.flatMap(({ name, uplink }) => {
      if (uplink === undefined) return []
      const [router, carrier] = routersOf(uplink)
      return [
        link(CORE, uplinks[name]!, carrier ?? router, 'wan'),
        ...(carrier === undefined ? [] : [link(carrier, 'lan', router, 'wan')]),
      ]
    }),
    ...machines.map(({ node, site }) =>
      link(site.uplink?.router ?? CORE, linkOf('port', id, node.name), node.name, 'eth0'),
    ),
    ...guests.map(({ host, node }) => link(node, linkOf('pod', id, host), host, 'eth0')),
  ]
  refuseCollisions(links)

  const cluster = nodes.flatMap(({ podCidrs }) => podCidrs)
  const nameserver = cloud.lans[0][plan.hasV4(underlay) ? 'v4' : 'v6'].at(1)
  const kubeDns = objects.services.find(
    ({ metadata }) => metadata?.namespace === 'kube-system' && metadata.name === 'kube-dns',
  )
  const clusterDns = normalise(kubeDns?.spec?.clusterIP ?? '') ?? NODE_LOCAL_DNS
  const portsTo = (site: Site, lan = 0) =>
    machines
      .filter((machine) => machine.site === site && machine.node.lan === lan)
      .map(({ node }) => linkOf('port', id, node.name))
  const host = (name: string, kind: LabHost['kind'], ip: readonly string[], nft: string): LabHost => ({
    name,
    kind,
    cgroup: `${cgroupOf(id)}/${name}`,
    ip: ['link set lo up', ...ip],
    nft,
    resolvConf: `nameserver ${nameserver}\n`,
  })
  const hosts: readonly LabHost[] = [
    host(CORE, 'core', coreLines(sites, uplinks, portsTo(cloud)), coreRules(CLOUD_BRIDGE)),
    ...sites.flatMap((site) => {
      const { uplink } = site
      if (uplink === undefined) return []
      const { router, nat, wan, carrier } = uplink
      const rules = (of: Nat, { v4 }: plan.Wan, lans?: readonly string[]) =>
        routerRules(of, v4?.at(2), options.firewall6, lans)
      const ports = (lan: number) => portsTo(site, lan)
      return [
        host(router, 'router', routerLines(site, uplink, ports), rules(nat, carrier?.lan ?? wan, lanDevices(site))),
        ...(carrier ? [host(carrier.router, 'router', carrierLines(site, uplink), rules(carrier.nat, wan))] : []),
      ]
    }),
    ...machines.map(({ node, site }) => {
      const own = guests.filter((pod) => pod.node === node.name)
      return host(
        node.name,
        'node',
        nodeLines(id, node, site, own, relayCount),
        masqueradeRules(node.podCidrs, cluster),
      )
    }),
    ...guests.map((pod) => ({
      ...host(
        pod.host,
        'pod',
        podLines(
          pod,
          nodes.find(({ name }) => name === pod.node)!,
        ),
        '',
      ),
      cgroup: `${cgroupOf(id)}/${pod.node}/${pod.host}`,
      resolvConf: podResolvConf(pod.namespace, clusterDns),
    })),
  ]
  const relays = relaysOf(relayCount).map((machine, index): LabRelay => {
    const { public: addresses, stun } = plan.relayAddresses(underlay, index)
    return { host: machine, addresses, stun, url: urlOf(addresses[0]!) }
  })
  return {
    id,
    underlay,
    relay: relays[0]!,
    relays,
    pools: sites.map((site) => poolOf(site, uplinks[site.name])),
    nodes,
    pods,
    hosts,
    links,
    problems: [...objects.problems, ...siteProblems, ...podProblems],
  }
}

/** Hosts on a LAN with their sites; machines of relays are there even where no Node object says so. */
function withRelays(
  sites: readonly Site[],
  relays: number,
): readonly { readonly node: LabNode; readonly site: Site }[] {
  const [cloud] = sites as [Site]
  const all = sites.flatMap((site) => site.nodes.map((node) => ({ node, site })))
  const [lan] = cloud.lans
  const others = relaysOf(relays).flatMap((name, relay) => {
    if (all.some(({ node }) => node.name === name)) return []
    const addresses = [lan.v4, lan.v6].map((prefix) => prefix.at(plan.relayHosts(relay)[0]))
    return [{ node: { name, pool: cloud.name, addresses, podCidrs: [], lan: 0 }, site: cloud }]
  })
  return [...others, ...all]
}

function poolOf({ name, nat, nodes, gateway, gateways, uplink }: Site, device: string | undefined): LabPool {
  const wan = [uplink?.wan.v4, uplink?.wan.v6].flatMap((prefix) => prefix?.at(2) ?? [])
  const common = { name, nat, nodes: nodes.map((node) => node.name), gateway, gateways, wan }
  if (uplink === undefined || device === undefined) return common
  const { router, carrier } = uplink
  return { ...common, router, ...(carrier && { carrier: carrier.router }), uplink: device }
}

/** From the site outwards. */
const routersOf = ({ router, carrier }: Uplink): readonly [string] | readonly [string, string] =>
  carrier === undefined ? [router] : [router, carrier.router]

function refuseCollisions(links: readonly LabLink[]): void {
  const [collision] = repeated(links.flat().map(({ host, device }) => `${device} of host ${host}`))
  if (collision !== undefined) throw new Error(`two links would be ${collision}: choose another --id`)
}

const link = (hostA: string, deviceA: string, hostB: string, deviceB: string): LabLink => [
  { host: hostA, device: deviceA },
  { host: hostB, device: deviceB },
]
export const urlOf = (address: string, port = 443) =>
  `https://${address.includes(':') ? `[${address}]` : address}:${port}`
