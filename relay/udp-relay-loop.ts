// Keeps the relay's nft table equal to the sessions' bindings, and conntrack's memory with it: each change is a transaction
// of its own; whatever goes wrong, and whatever others remove, ends in the whole table anew. Counters are read now and
// then, never per packet.

import { createSocket, type Socket } from 'node:dgram'
import { formatSocketAddress, socketAddress } from '../lib/address.ts'
import { FAMILIES, type Family } from '../lib/cidr.ts'
import { ExecError, run } from '../lib/net/exec.ts'
import { onAbort, pause, UsageError } from '../lib/net/lifetime.ts'
import { Netlink } from '../lib/net/netlink.ts'
import { monitorNft } from '../lib/net/nft-monitor.ts'
import { openNft } from '../lib/net/nft.ts'
import { ensureForwarding } from '../lib/net/sysctl.ts'
import { addressLookup } from '../lib/net/udp-socket.ts'
import { createUpkeep } from '../lib/net/upkeep.ts'
import { NFT_TABLE_RELAY, RELAY_FLOW_MARK, RELAY_FLOW_MARK_MASK } from '../lib/owned.ts'
import {
  droppingForwardChains,
  flowMark,
  readTable,
  renderChange,
  renderTable,
  strayFlows,
  type Forwarder,
  type ForwarderOptions,
  type Observed,
} from './udp-relay.ts'

/** Counters and, in case a notice of loss was missed, the rules. */
const LOOK_PERIOD_MS = 10_000
const ZERO = { packets: 0, bytes: 0 }

/** @throws where this host's kernel cannot be used: no nft, no conntrack, no CAP_NET_ADMIN, forwarding that cannot be switched on. */
export async function openKernelForwarder(options: ForwarderOptions, signal: AbortSignal): Promise<Forwarder> {
  const { places, ports, log } = options
  const bindings = { 4: new Map(options.bindings[4]), 6: new Map(options.bindings[6]) }
  const netlink = new Netlink()
  await ensureForwarding(netlink, log).finally(() => netlink.close())
  const nft = openNft(signal, log)

  let changes = 0
  /** Of tables that are gone, and of this one as last read. */
  let before: Totals = NOTHING
  let since: Totals = NOTHING
  const totals = (): Totals => ({
    arrived: add(before.arrived, since.arrived),
    unbound: add(before.unbound, since.unbound),
    begun: add(before.begun, since.begun),
    passed: add(before.passed, since.passed),
  })
  const isLossy = (): boolean => totals().begun.packets > totals().passed.packets
  const flows = openFlows(options)
  let straysDue = false
  const load = async (): Promise<void> => {
    before = totals()
    since = NOTHING
    straysDue = true
    await nft.apply([renderTable(places, ports, bindings)])
    await sweep()
  }
  const sweep = async (): Promise<void> => {
    if (!straysDue) return
    await flows.forgetStrays()
    straysDue = false
  }
  await load()
  await flows.forgetOthers([...bindings[4].keys(), ...bindings[6].keys()])
  const sockets = await openSockets(options, signal)

  let failure: string | undefined
  let dropping: readonly string[] = []
  let broken = false
  const look = async (): Promise<void> => {
    const changesBefore = changes
    const listing = await listTable()
    const observed = listing === undefined ? undefined : readTable(listing, places, bindings)
    if (observed !== undefined) since = observed
    // A change during the listing makes it no witness.
    const doubtful = changes !== changesBefore
    if (broken || (observed?.intact !== true && !doubtful)) {
      if (!broken) log.warn({ table: NFT_TABLE_RELAY }, 'somebody removed our nft rules; loading them again')
      await load()
      broken = false
    }
    await sweep()
    // Only where something got lost it is asked who drops it: that starts nft.
    dropping = isLossy()
      ? droppingForwardChains(await run('nft', ['-j', 'list', 'chains']).catch(() => '{"nftables":[]}'))
      : []
    failure = undefined
  }
  const upkeep = createUpkeep(
    {
      pass: look,
      onError: (err) => {
        failure = `the kernel does not forward sessions: ${(err as Error).message}`
        log.error({ err }, 'the nft table of the relay could not be loaded; trying again')
      },
    },
    signal,
  )
  const monitor = monitorNft(
    {
      onLine: (line) => {
        if (line.includes(`inet ${NFT_TABLE_RELAY}`)) upkeep.trigger()
      },
      onStart: upkeep.trigger,
      log,
    },
    signal,
  )
  const watch = async (): Promise<void> => {
    while (!signal.aborted) {
      await pause(LOOK_PERIOD_MS, signal)
      upkeep.trigger()
    }
  }
  const watched = watch()

  return {
    kind: 'kernel',
    open: () => Promise.resolve(true),
    close: () => undefined,
    async bind(family, port, place) {
      const was = bindings[family].get(port)
      if (was === undefined && place === undefined) return
      if (place === undefined) bindings[family].delete(port)
      else bindings[family].set(port, place)
      changes++
      try {
        await nft.apply(renderChange(family, port, was, place))
      } catch (err) {
        log.warn({ err }, 'an nft element could not be changed; loading the whole table')
        broken = true
        await upkeep.now()
      }
      // With the rules as they are now, flows that go on begin anew.
      if (was !== undefined) await flows.forget(family, port)
    },
    send: (datagram, _port, { address, port, family }) => {
      if (!signal.aborted) sockets.get(family)?.send(datagram, port, address, () => {})
    },
    counts: () => {
      const { arrived, unbound, begun, passed } = totals()
      return {
        forwarded: { packets: arrived.packets - unbound.packets, bytes: arrived.bytes - unbound.bytes },
        unbound: unbound.packets,
        lost: Math.max(0, begun.packets - passed.packets),
      }
    },
    problems: () => [
      ...(failure === undefined ? [] : [failure]),
      // A chain that drops by policy may have a rule for us; what got lost tells.
      ...(isLossy()
        ? dropping.map(
            (chain) =>
              `nft chain ${chain} drops what it does not know, and packets between gateways are among it; ` +
              `let it accept what has "ct mark & ${MASK_HEX} == ${MARK_HEX}"`,
          )
        : []),
    ],
    closed: Promise.all([monitor, watched, upkeep.idle()]).then(() => undefined),
  }
}

type Totals = Pick<Observed, 'arrived' | 'unbound' | 'begun' | 'passed'>
const NOTHING: Totals = { arrived: ZERO, unbound: ZERO, begun: ZERO, passed: ZERO }
const MARK_HEX = `0x${RELAY_FLOW_MARK.toString(16)}`
const MASK_HEX = `0x${RELAY_FLOW_MARK_MASK.toString(16)}`

/** What conntrack remembers of sessions. One program at a time: a relay that lost a network has hundreds of flows to forget. */
function openFlows({ places, ports, log }: ForwarderOptions) {
  const families = FAMILIES.filter((family) => places[family] !== undefined)
  let last: Promise<void> = Promise.resolve()
  const conntrack = (family: Family, command: '-L' | '-D', ...filter: readonly string[]): Promise<string> =>
    run('conntrack', [command, '-f', `ipv${family}`, '-p', 'udp', ...filter])
  const remove = async (family: Family, ...words: readonly string[]): Promise<void> => {
    await conntrack(family, '-D', ...words).catch((error: Error) => {
      // So it says, and exits with 1, where there was none.
      if (!error.message.includes('0 flow entries')) throw error
    })
  }
  const queue = (task: () => Promise<void>): Promise<void> => {
    const done = last.then(task)
    last = done.catch(() => undefined)
    return done
  }
  return {
    forget: (family: Family, port: number) => queue(() => remove(family, '--mark', `${flowMark(port)}`)),
    /** Of an earlier run, but for those of sessions with these ports, which go on. */
    forgetOthers: (kept: readonly number[]) =>
      queue(async () => {
        const ours = `${MARK_HEX}/${MASK_HEX}`
        const marks = new Set(kept.map(flowMark))
        for (const family of families) {
          if (marks.size === 0) await remove(family, '--mark', ours)
          else
            for (const mark of marksIn(await conntrack(family, '-L', '--mark', ours)))
              if (!marks.has(mark)) await remove(family, '--mark', `${mark}`)
        }
      }),
    /** While the rules were not there, packets to the ports began flows that would go on past them. */
    forgetStrays: () =>
      queue(async () => {
        for (const family of families)
          for (const { source, port } of strayFlows(await conntrack(family, '-L'), places, ports)) {
            log.debug({ addr: formatSocketAddress(source), port }, 'a flow past our nft rules is forgotten')
            const from = ['-s', source.address, '--sport', String(source.port)]
            await remove(family, ...from, '-d', places[family]!, '--dport', String(port))
          }
      }),
  }
}

/** @param listing what `conntrack -L` printed. */
const marksIn = (listing: string): ReadonlySet<number> =>
  new Set(Array.from(listing.matchAll(/ mark=(\d+)/g), ([, mark]) => Number(mark)))

const add = (a: typeof ZERO, b: typeof ZERO): typeof ZERO => ({
  packets: a.packets + b.packets,
  bytes: a.bytes + b.bytes,
})

/** @returns undefined where there is no such table. */
async function listTable(): Promise<string | undefined> {
  try {
    return await run('nft', ['-j', 'list', 'table', 'inet', NFT_TABLE_RELAY])
  } catch (error) {
    if (error instanceof ExecError && error.stderr.includes('No such file or directory')) return undefined
    throw error
  }
}

/** One per family, to which the kernel hands the STUN of all ports. */
async function openSockets(
  { places, ports, onStun, log }: ForwarderOptions,
  signal: AbortSignal,
): Promise<ReadonlyMap<Family, Socket>> {
  const sockets = new Map<Family, Socket>()
  try {
    for (const family of FAMILIES) {
      const address = places[family]
      if (address !== undefined) sockets.set(family, await bindSocket(family, address, ports.first))
    }
  } catch (error) {
    for (const socket of sockets.values()) socket.close()
    throw error
  }
  for (const socket of sockets.values()) {
    socket.on('error', (err) => log.warn({ err }, 'the socket of UDP sessions failed'))
    socket.on('message', (datagram, { address, port }) => {
      const source = socketAddress(address, port)
      if (source !== undefined) onStun(datagram, source)
    })
  }
  const close = (): void => sockets.forEach((socket) => socket.close())
  onAbort(signal, close)
  return sockets
}

/** @throws UsageError if the address is none of this host's, or the port is taken. */
export function bindSocket(family: Family, address: string, port: number): Promise<Socket> {
  const socket = createSocket({ type: `udp${family}`, ipv6Only: family === 6, lookup: addressLookup })
  return new Promise((resolve, reject) => {
    socket.once('error', (cause: NodeJS.ErrnoException) => {
      socket.close()
      const remedy = 'choose other ports by --udp-relay-ports, or none to switch relaying over UDP off'
      reject(new UsageError(`UDP port ${port} of ${address}: ${cause.code ?? cause.message}; ${remedy}`, { cause }))
    })
    socket.bind(port, address, () => {
      socket.removeAllListeners('error')
      resolve(socket)
    })
  })
}
