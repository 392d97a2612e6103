// Whether the NAT sends back inside what goes to its own mapped addresses (RFC 5780 §3.4, RFC 4787 §6): by this two gateways
// behind one NAT meet that do not see each other's LAN.
//
// Two sockets ask each other at their mapped addresses, as two gateways would that punch: where the NAT filters, each
// lets the other's packets in by its own.

import { sameSocketAddress, socketAddress, type SocketAddress } from '../lib/address.ts'
import type { Family } from '../lib/cidr.ts'
import { encodeStun } from '../lib/wire/stun.ts'
import { silentAfterMs } from './nat.ts'
import { mappedOf, openAsker, sourceAddress, type AskerSocket } from './stun-client.ts'

export type HairpinOptions = {
  /** The first that answers is used; at most 4 are asked. */
  readonly servers: readonly SocketAddress[]
  readonly family: Family
}

const MAX_SERVERS = 4
const SEARCH_MS = 1_500

/** @returns undefined where there is no NAT, or no server answers. */
export async function testHairpin(options: HairpinOptions, signal: AbortSignal): Promise<boolean | undefined> {
  const { family } = options
  const servers = options.servers.filter((server) => server.family === family).slice(0, MAX_SERVERS)
  const ending = new AbortController()
  const stopped = AbortSignal.any([signal, ending.signal])
  try {
    const sockets = await Promise.all([openAnswering(family, stopped), openAnswering(family, stopped)])
    const [x, y] = await Promise.all(sockets.map((socket) => findMapped(socket, servers)))
    if (x === undefined || y === undefined) return undefined
    const timeoutMs = silentAfterMs(Math.max(x.rttMs, y.rttMs))
    const meets = async ({ socket }: Mapped, other: Mapped): Promise<void> => {
      const answer = await socket.asker.ask(other.mapped, timeoutMs, { fromAnywhere: true })
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
async function openAnswering(family: Family, signal: AbortSignal): Promise<AskerSocket> {
  const socket: AskerSocket = await openAsker(
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

type Mapped = { readonly socket: AskerSocket; readonly mapped: SocketAddress; readonly rttMs: number }

async function findMapped(socket: AskerSocket, servers: readonly SocketAddress[]): Promise<Mapped | undefined> {
  const asked = servers.map(async (server): Promise<Mapped> => {
    const [answer, source] = await Promise.all([socket.asker.ask(server, SEARCH_MS), sourceAddress(server)])
    const mapped = answer && mappedOf(answer.message)
    const local = source === undefined ? undefined : socketAddress(source, socket.port)
    if (answer === undefined || mapped === undefined) throw new Error('silent')
    if (local !== undefined && sameSocketAddress(mapped, local)) throw new Error('no NAT')
    return { socket, mapped, rttMs: answer.rttMs }
  })
  return Promise.any(asked).catch(() => undefined)
}
