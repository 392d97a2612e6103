// Notices when this host is in another network: it has other addresses, or its default routes lead elsewhere. The kernel's
// notices say when to look; a DHCP lease or a router's advertisement that is renewed as it was changes nothing.

import type { Log } from '../lib/log.ts'
import { Netlink } from '../lib/net/netlink.ts'
import { TABLE_MAIN } from '../lib/net/netlink-codec.ts'
import { createUpkeep } from '../lib/net/upkeep.ts'

/** A network that comes up does so in many steps, and a routing daemon may change the main table all the time. */
const COALESCE_MS = 500

/** @param options.addresses as they are now; what means nothing outside of the node is left out. */
export function watchNetwork(
  options: { readonly addresses: () => readonly string[]; readonly onChange: () => void; readonly log: Log },
  signal: AbortSignal,
): void {
  const netlink = new Netlink()
  let known: string | undefined
  const upkeep = createUpkeep(
    {
      pass: async () => {
        const routes = (await netlink.defaultRoutes()).map(({ family, via, device, metric }) =>
          JSON.stringify([family, via, device, metric]),
        )
        const now = JSON.stringify([...options.addresses(), ...routes].toSorted())
        if (known !== undefined && now !== known) options.onChange()
        known = now
      },
      onError: (err) => options.log.warn({ err }, 'the default routes could not be read'),
      onEnd: () => netlink.close(),
      coalesceMs: COALESCE_MS,
    },
    signal,
  )
  netlink.watch((event) => {
    if (event.kind === 'address' || event.kind === 'link' || event.kind === 'lost') return upkeep.trigger()
    // Routes that go with their device are told of for the device only.
    if (event.kind === 'route' && event.table === TABLE_MAIN) upkeep.trigger()
  })
  upkeep.trigger()
}
