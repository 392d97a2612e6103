// The agent's routes and the overlay that some of them need, kept in the kernel as wanted. Nothing is removed at the end,
// and nothing before the first update: an agent that restarts without the cloud goes on with what is there.

import { addressAt, familyOf, overlaps, parseCidr, type Cidr } from '../lib/cidr.ts'
import type { Pool, PoolNode } from '../lib/k8s/pools.ts'
import type { Log } from '../lib/log.ts'
import { TABLE_MAIN, type Link, type LinkAddress, type Netlink } from '../lib/net/netlink.ts'
import { renumbering } from '../lib/net/numbers.ts'
import { isMeshRoute, openRouteTable } from '../lib/net/route-table.ts'
import { ensureForwarding, ensureMtuProbing } from '../lib/net/sysctl.ts'
import {
  NUMBERS,
  PROTOCOL_AGENT,
  PROTOCOL_GATEWAY,
  VXLAN_ADDRESS,
  VXLAN_DEVICES,
  WIREGUARD_MARK,
  type Numbers,
} from '../lib/owned.ts'
import { overlaysOf, underlayAddress, type Overlay } from './overlay.ts'
import { ensureOverlays, type OverlaySettings } from './overlay-loop.ts'
import { planAgentRoutes, type AgentRoutesInput, type AgentRoutesPlan } from './routes.ts'
import type { Reach } from './transport.ts'

export type AgentRoutes = {
  /** Makes the routes those that follow from these pools. @throws RoutesError; it is tried again by itself. */
  update(input: AgentRoutesInput): Promise<void>
  /** The plan in force, for the status; undefined before the first update. */
  readonly plan: AgentRoutesPlan | undefined
  /** The pools that routes were last asked for. */
  readonly known: readonly Pool[] | undefined
  /** Devices between nodes that share no link. */
  readonly overlays: readonly Overlay[]
}

export async function runRoutes(
  options: { readonly overlay: OverlaySettings; readonly numbers?: Numbers; readonly log: Log },
  signal: AbortSignal,
): Promise<AgentRoutes> {
  const { overlay, numbers = NUMBERS, log } = options
  let input: AgentRoutesInput | undefined
  let plan: AgentRoutesPlan | undefined
  let overlays: readonly Overlay[] = []
  let taken: readonly string[] = []
  let networks: ReadonlySet<number> = new Set()
  let near: readonly Cidr[] = []
  let all: readonly Cidr[] = []

  const observe = async (
    links: readonly Link[],
    addresses: readonly LinkAddress[],
    { node, pools }: AgentRoutesInput,
  ) => {
    const up = new Map(links.flatMap((link) => (link.up ? [[link.index, link] as const] : [])))
    const local = addresses.filter(({ device }) => up.has(device))
    const nodes = pools.find((pool) => pool.nodes.some(({ name }) => name === node))?.nodes ?? []
    const self = nodes.find(({ name }) => name === node)
    const neighbours = nodes.filter(({ name }) => name !== node)
    if (self === undefined) return { links: local, reach: new Map(), carried: new Map(), overlay: {}, problems: [] }
    overlays = overlaysOf(self, neighbours, local, (device) => up.get(device)?.mtu)
    const { devices, problems } = await ensureOverlays(table.netlink, overlays, overlay, log)
    return {
      links: local,
      reach: await reachOf(table.netlink, neighbours, up),
      carried: await carriedTo(table.netlink, neighbours),
      overlay: devices,
      problems,
    }
  }

  const table = openRouteTable(
    {
      protocol: PROTOCOL_AGENT,
      numbers,
      async plan(links, addresses) {
        if (input === undefined) return undefined
        const around = await observe(links, addresses, input)
        const { problems, ...rest } = planAgentRoutes(input, around)
        // Where every neighbour is reached without, a device that cannot be made is nobody's problem.
        plan = { ...rest, problems: problems.length === 0 ? [] : [...problems, ...around.problems] }
        networks = new Set(addresses.flatMap(({ device, address }) => (isLinkLocal(address) ? [] : [device])))
        return { nexthops: [], routes: plan.routes }
      },
      // A pod that comes or goes is no concern: its device has a link-local address at most.
      concerns: (event) =>
        event.kind === 'link'
          ? networks.has(event.link.index) || isOverlay(event.link)
          : !isLinkLocal(event.address.address) || (event.removed && event.address.address === VXLAN_ADDRESS),
      concernsRule: ({ priority }) => priority < numbers.rulePreference,
      async onApplied() {
        const asked = input
        // What comes next must not wait for thousands of questions.
        if (asked !== undefined)
          taken = (await takenBefore(table.netlink, numbers, asked, () => input !== asked)) ?? taken
      },
      // It may change how a neighbour is reached, who takes its pods, or who takes those of other pools.
      concernsRoute: (event) => {
        const cidr = parseCidr(event.destination())
        return cidr !== undefined && (event.table === TABLE_MAIN ? near : all).some((ours) => overlaps(ours, cidr))
      },
      log,
    },
    signal,
  )
  await ensureForwarding(table.netlink, log)
  await ensureMtuProbing(log)

  return {
    get plan() {
      return plan && { ...plan, problems: [...plan.problems, ...taken] }
    },
    get known() {
      return input?.pools
    },
    get overlays() {
      return overlays
    },
    async update(next) {
      input = next
      const isOwn = ({ nodes }: Pool) => nodes.some(({ name }) => name === next.node)
      near = next.pools.filter(isOwn).flatMap((pool) => cidrsOf(pool, next.node))
      all = next.pools.flatMap((pool) => cidrsOf(pool, next.node))
      await table.apply()
    },
  }
}

/** Prefixes of the pods of a pool's nodes, and their addresses; but for this node's. */
const cidrsOf = ({ nodes }: Pool, self: string): readonly Cidr[] =>
  nodes
    .filter(({ name }) => name !== self)
    .flatMap(({ podCidrs, addresses }) => [...podCidrs, ...addresses.map(single)])
    .flatMap((text) => parseCidr(text) ?? [])

const isLinkLocal = (address: string) => address.startsWith('fe80:') || address.startsWith('169.254.')
const isOverlay = ({ name }: Link) => Object.values<string>(VXLAN_DEVICES).includes(name)
const single = (address: string) => `${address}/${familyOf(address) === 4 ? 32 : 128}`

/** Asked with WireGuard's mark, which leads past the mesh's own routes. */
async function reachOf(
  netlink: Netlink,
  neighbours: readonly PoolNode[],
  devices: ReadonlyMap<number, Link>,
): Promise<ReadonlyMap<string, Reach>> {
  const reach = new Map<string, Reach>()
  for (const neighbour of neighbours)
    for (const family of [4, 6] as const) {
      const address = underlayAddress(neighbour, family)
      const hop = address && (await netlink.hopTo(family, address, WIREGUARD_MARK))
      const device = hop && devices.get(hop.device)
      if (hop && device) reach.set(address, { device: hop.device, onLink: hop.via === undefined && device.resolves })
    }
  return reach
}

async function carriedTo(
  netlink: Netlink,
  neighbours: readonly PoolNode[],
): Promise<ReadonlyMap<string, readonly number[]>> {
  if (neighbours.length === 0) return new Map()
  const foreign = (await netlink.foreignRoutes([PROTOCOL_AGENT, PROTOCOL_GATEWAY])).flatMap(
    ({ destination, device }) => {
      const cidr = parseCidr(destination)
      return cidr === undefined ? [] : [{ cidr, device: device ?? 0 }]
    },
  )
  return new Map(
    neighbours
      .flatMap(({ podCidrs }) => podCidrs.flatMap((text) => parseCidr(text) ?? []))
      .map((prefix) => [
        prefix.text,
        // A wider one, of a site's router say, is nobody's way to these pods in particular.
        foreign
          .filter(({ cidr }) => overlaps(cidr, prefix) && cidr.length >= prefix.length)
          .map(({ device }) => device),
      ]),
  )
}

/**
 * Which pools' packets a rule before ours takes elsewhere, a VPN's say, and what to do. One address of each prefix is asked
 * for, without a mark, as a pod's packets have none.
 * @returns undefined where it was given up, `isOld` having said so.
 */
async function takenBefore(
  netlink: Netlink,
  numbers: Numbers,
  { node, pools }: AgentRoutesInput,
  isOld: () => boolean,
): Promise<readonly string[] | undefined> {
  const ours = numbers.rulePreference
  const { toKernel } = renumbering(numbers)
  const others = pools.filter(({ nodes }) => !nodes.some(({ name }) => name === node))
  const taken = new Map<number, { readonly pool: string; readonly prefix: string }[]>()
  for (const pool of others)
    for (const cidr of pool.nodes.flatMap(({ podCidrs }) => podCidrs.flatMap((text) => parseCidr(text) ?? []))) {
      if (isOld()) return undefined
      const hop = await netlink.hopTo(cidr.family, addressAt(cidr, 1n), 0)
      if (hop === undefined || isMeshRoute(hop)) continue
      const { table } = toKernel.table(hop)
      taken.set(table, [...(taken.get(table) ?? []), { pool: pool.name, prefix: cidr.text }])
    }
  if (taken.size === 0) return []
  const rules = (await netlink.rules()).map(toKernel.rule)
  return [...taken].map(([table, prefixes]) => {
    const before = rules.filter((rule) => rule.table === table && rule.priority < ours)
    const rule = before.length === 0 ? 'a rule' : `rule ${Math.min(...before.map(({ priority }) => priority))}`
    const [{ pool, prefix }] = prefixes as [{ pool: string; prefix: string }]
    const more = prefixes.length > 1 ? ` and ${prefixes.length - 1} more` : ''
    return (
      `packets for ${prefix} of pool ${pool}${more} leave by routing table ${table}: ${rule} comes before ours ` +
      `(${ours}), a VPN's perhaps; give it a preference over ${ours} (or ours one below, with --rule-preference), or take these prefixes out of that table`
    )
  })
}
