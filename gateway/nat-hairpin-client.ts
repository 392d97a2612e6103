// Whether the NAT sends back inside what goes to its own mapped addresses (RFC 5780 §3.4, RFC 4787 §6): by this two gateways
// behind one NAT meet that do not see each other's LAN.
//
// Two sockets ask each other at their mapped addresses, as two gateways would that punch: where the NAT filters, each
// lets the other's packets in by its own.

import { sameSocketAddress, type SocketAddress } from '../lib/address.ts'
import type { Family } from '../lib/cidr.ts'
import { encodeStun } from '../lib/wire/stun.ts'
import { silentAfterMs } from './nat.ts'
import { testMapping } from './nat-client.ts'
import { openStunSocket, serversToAsk, type StunSocket } from './stun-client.ts'

export type HairpinOptions = {
  /** The first that answers is used. */
  readonly servers: readonly SocketAddress[]
  readonly family: Family
}

const SEARCH_MS = 1_500

/** @returns undefined where there is no NAT, or no server answers. */
export async function testHairpin(options: HairpinOptions, signal: AbortSignal): Promise<boolean | undefined> {
  const { family } = options
  const servers = serversToAsk(options.servers, family)
  const ending = new AbortController()
  const stopped = AbortSignal.any([signal, ending.signal])
  try {
    const sockets = await Promise.all([openAnswering(family, stopped), openAnswering(family, stopped)])
    const [x, y] = await Promise.all(sockets.map((socket) => findMapped(socket, servers)))
    if (x === undefined || y === undefined) return undefined
    const timeoutMs = silentAfterMs(Math.max(x.rttMs, y.rttMs))
    const meets = async ({ socket }: Mapped, other: Mapped): Promise<void> => {
      const answer = await socket.client.ask(other.mapped, timeoutMs, { fromAnywhere: true })
      if (answer?.message.class !== 'success') throw new Error('silent')
    }
    const met = await Promise.any([meets(x, y), meets(y, x)]).then(
      () => true,
      () => false,
    )
    return signal.aborted ? undefined : met
  } catch {
    // A host without this family has no sockets of it.
    return undefined
  } finally {
    ending.abort()
  }
}

/** Answers whoever asks it; its mapped address is known to none but us, and lives for a second or two. */
async function openAnswering(family: Family, signal: AbortSignal): Promise<StunSocket> {
  const socket: StunSocket = await openStunSocket(
    family,
    signal,
    ({ class: kind, method, transactionId, classic }, from) => {
      if (kind !== 'request' || classic) return
      const fields = { method, transactionId, classic, xorMappedAddress: from, unknownAttributes: [] }
      socket.send(encodeStun({ class: 'success', ...fields }), from)
    },
  )
  return socket
}

type Mapped = { readonly socket: StunSocket; readonly mapped: SocketAddress; readonly rttMs: number }

async function findMapped(socket: StunSocket, servers: readonly SocketAddress[]): Promise<Mapped | undefined> {
  const asked = servers.map(async (server): Promise<Mapped> => {
    const test = await testMapping(socket, server, SEARCH_MS)
    if (test === undefined) throw new Error('silent')
    const { mapped, local, rttMs } = test
    if (local !== undefined && sameSocketAddress(mapped, local)) throw new Error('no NAT')
    return { socket, mapped, rttMs }
  })
  return Promise.any(asked).catch(() => undefined)
}
