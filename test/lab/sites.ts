// The pools of a lab: which has which nodes, NAT, LAN and place on the Internet. The cloud comes first and is always
// there; every other pool is a site behind a router of its own, and some of those behind a NAT of their carrier too.

import { parseCidr } from '../../lib/cidr.ts'
import { poolsOf, type Pool } from '../../lib/k8s/pools.ts'
import type { Objects } from './folder.ts'
import { carrierOf, CLOUD, CORE, fitsHost, relaysOf, routerOf } from './names.ts'
import { DEFAULT_NATS, natsOf, type Nat, type NatName } from './nat.ts'
import * as plan from './plan.ts'

export type SiteOptions = {
  readonly underlay: plan.Underlay
  readonly overlapLans: boolean
  readonly nat: ReadonlyMap<string, NatName>
  /** Gateways of each pool, where it has so many nodes that may be one; 1 if nothing is said. */
  readonly gateways?: number | undefined
  /** Whether routers have a stateful firewall for IPv6; they have if nothing is said. */
  readonly firewall6?: boolean | undefined
  /** Pools whose nodes are on two LANs in turn, joined by the site's router. */
  readonly splitLans?: readonly string[] | undefined
  /** Machines with relays; 1 if nothing is said. */
  readonly relays?: number | undefined
  /** Names of pools in the order of their sites; pools that are not named follow by name. */
  readonly order?: readonly string[] | undefined
}

export type LabNode = {
  readonly name: string
  readonly pool: string
  /** On its LAN: IPv4, IPv6. */
  readonly addresses: readonly string[]
  /** The prefixes of its Node object that are prefixes, in canonical text. */
  readonly podCidrs: readonly string[]
  /** Which of its site's LANs it is on. */
  readonly lan: number
}
export type Site = {
  readonly name: string
  readonly nat: NatName
  readonly nodes: readonly LabNode[]
  /** The node that runs the pool's gateway; empty for a cloud without nodes. */
  readonly gateway: string
  /** Nodes that run one, in the order of the objects; `gateway` is the first. */
  readonly gateways: readonly string[]
  /** One, or two of a site that is split. */
  readonly lans: readonly [plan.Lan, ...plan.Lan[]]
  /** Absent for the cloud, whose LAN is at the core. */
  readonly uplink: Uplink | undefined
}
/** How a site is joined to the core: by its router, or by its router and behind that its carrier's. */
export type Uplink = {
  readonly router: string
  readonly nat: Nat
  /** At the core. */
  readonly wan: plan.Wan
  /** `lan` is between the router and the carrier. */
  readonly carrier: { readonly router: string; readonly nat: Nat; readonly lan: plan.Wan } | undefined
}

export function planSites(
  objects: Objects,
  options: SiteOptions,
): { readonly sites: readonly Site[]; readonly problems: readonly string[] } {
  const { pools, problems: found } = poolsOf(objects.nodes, objects.nodePools, objects.gateways)
  const problems = [...found]
  const podCidrs = new Map(
    objects.nodes.map(({ metadata, spec }) => [
      metadata?.name ?? '',
      (spec?.podCIDRs ?? [spec?.podCIDR ?? '']).flatMap((text) => parseCidr(String(text))?.text ?? []),
    ]),
  )
  const cloudPool =
    pools.find(({ nodes }) => nodes.some(({ name }) => name === CLOUD)) ?? pools.find(({ name }) => name === CLOUD)
  const order = options.order ?? []
  const rank = (pool: Pool) => (order.includes(pool.name) ? order.indexOf(pool.name) : order.length)
  const others = pools.filter((pool) => pool !== cloudPool).toSorted((a, b) => rank(a) - rank(b))
  const taken = new Set<string>([CORE, ...relaysOf(options.relays ?? 1).slice(1)])

  /** Names that the lab can give: each once, and none too long. */
  const admit = (pool: Pool, nodes: readonly string[]): readonly string[] =>
    nodes.filter((name) => {
      const fits = !taken.has(name) && fitsHost(name)
      if (fits) taken.add(name)
      else
        problems.push(
          `pool ${pool.name}: host ${name} has a name that is taken, too long or none for a host: it is left out; rename the node or the pool`,
        )
      return fits
    })
  const members = (
    pool: Pool,
    nodes: readonly string[],
    lans: readonly plan.Lan[],
    hostAt: (name: string, index: number) => number,
  ): readonly LabNode[] =>
    nodes.map((name, index) => ({
      name,
      pool: pool.name,
      addresses: on(lans[index % lans.length]!, hostAt(name, index)),
      podCidrs: podCidrs.get(name) ?? [],
      lan: index % lans.length,
    }))
  const gatewaysOf = (pool: Pool, nodes: readonly LabNode[]) => {
    const able = pool.gateways.filter((name) => nodes.some((node) => node.name === name))
    const gateways = able.slice(0, options.gateways ?? 1)
    return { gateway: gateways[0] ?? '', gateways }
  }

  const cloudLan = plan.cloudLan(options.underlay)
  const cloud = cloudPool ?? { name: CLOUD, nodes: [], gateways: [] }
  const cloudNames = admit(
    cloud,
    cloud.nodes.map(({ name }) => name),
  )
  taken.add(CLOUD)
  const cloudNodes = members(cloud, cloudNames, [cloudLan], (name, index) =>
    name === CLOUD ? plan.relayHosts(0)[0] : plan.FIRST_CLOUD_NODE + index,
  )
  const sites: Site[] = [
    {
      name: cloud.name,
      nat: 'none',
      nodes: cloudNodes,
      ...gatewaysOf(cloud, cloudNodes),
      lans: [cloudLan],
      uplink: undefined,
    },
  ]
  for (const pool of others) {
    if (sites.length > plan.SITES_MAX) {
      problems.push(`pool ${pool.name}: the lab has room for ${plan.SITES_MAX} sites: it is left out`)
      continue
    }
    const index = sites.length
    const nat = options.nat.get(pool.name) ?? DEFAULT_NATS[(index - 1) % DEFAULT_NATS.length]!
    const [own, outer] = natsOf(nat)
    const routers = [routerOf(pool.name), ...(outer === undefined ? [] : [carrierOf(pool.name)])]
    const admitted = admit(pool, [...routers, ...pool.nodes.map(({ name }) => name)])
    const names = admitted.slice(routers.length)
    if (!routers.every((router) => admitted.includes(router)) || names.length === 0) continue
    if (names.length > plan.NODES_MAX)
      problems.push(`pool ${pool.name}: only the first ${plan.NODES_MAX} nodes are in the lab`)
    const lan = plan.siteLan(index, nat, options.underlay, options.overlapLans)
    const second = plan.secondLan(index, options.underlay, options.overlapLans)
    const lans = options.splitLans?.includes(pool.name) ? ([lan, second] as const) : ([lan] as const)
    const nodes = members(pool, names.slice(0, plan.NODES_MAX), lans, (_, host) => plan.FIRST_NODE + host)
    sites.push({
      name: pool.name,
      nat,
      nodes,
      ...gatewaysOf(pool, nodes),
      lans,
      uplink: {
        router: routers[0]!,
        nat: own,
        wan: plan.siteWan(index, options.underlay),
        carrier: outer && { router: routers[1]!, nat: outer, lan: plan.carrierLan(index, options.underlay) },
      },
    })
  }
  return { sites, problems }
}

const on = ({ v4, v6 }: plan.Lan, host: number): readonly string[] => [v4.at(host), v6.at(host)]
