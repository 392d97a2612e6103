// Takes back what agent and gateway put into the kernel, known by the numbers and names of lib/owned and nothing else:
// rules, routes, nexthop objects, WireGuard and VXLAN devices. A wireguard-go ends by itself when its device goes.

import { CARRIERS, NUMBERS, PROTOCOL_AGENT, PROTOCOL_GATEWAY, VXLAN_DEVICES, type Numbers } from '../owned.ts'
import { routeText } from '../routes.ts'
import { removeFormer, ruleText } from './former-numbers.ts'
import { Netlink, NetlinkError } from './netlink.ts'
import { renumbering } from './numbers.ts'
import { isMeshNexthop, isMeshRoute, isMeshRule } from './route-table.ts'

/** What goes by itself while it is removed, such as the routes of a wireguard-go that ends, fails a pass once. */
const PASSES = 3

/** @returns a line per thing removed; empty if there was nothing. Stop the daemons first: they put back what goes. */
export async function removeOwned(numbers: Numbers = NUMBERS): Promise<readonly string[]> {
  const netlink = new Netlink(numbers)
  const removed: string[] = []
  try {
    for (let left = PASSES; ; left--)
      try {
        await removeAll(netlink, numbers, removed)
        return removed
      } catch (error) {
        if (!(error instanceof NetlinkError) || left === 1) throw error
      }
  } finally {
    netlink.close()
  }
}

async function removeAll(netlink: Netlink, numbers: Numbers, removed: string[]): Promise<void> {
  const { toKernel } = renumbering(numbers)
  const each = async <T>(things: readonly T[], remove: (thing: T) => Promise<void>, text: (thing: T) => string) => {
    for (const thing of things) {
      await remove(thing)
      removed.push(text(thing))
    }
  }
  await each(
    (await netlink.rules()).filter(isMeshRule),
    (rule) => netlink.removeRule(rule),
    (rule) => ruleText(toKernel.rule(rule)),
  )
  await each(
    (await netlink.routes([PROTOCOL_AGENT, PROTOCOL_GATEWAY])).filter(isMeshRoute),
    (route) => netlink.removeRoute(route),
    (route) => `route ${routeText(toKernel.table(route))}`,
  )
  removed.push(...(await removeFormer(numbers, [PROTOCOL_AGENT, PROTOCOL_GATEWAY])))
  await each(
    (await netlink.nexthops()).filter(isMeshNexthop),
    (nexthop) => netlink.removeNexthop(nexthop),
    ({ id }) => `nexthop ${id}`,
  )
  const names: readonly string[] = Object.values(CARRIERS)
  const overlays: readonly string[] = Object.values(VXLAN_DEVICES)
  await each(
    (await netlink.links()).filter(
      ({ name, kind }) =>
        (names.includes(name) && (kind === 'wireguard' || kind === 'tun')) ||
        (overlays.includes(name) && kind === 'vxlan'),
    ),
    (link) => netlink.removeLink(link),
    ({ name }) => `device ${name}`,
  )
}
