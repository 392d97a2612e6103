// What a NAT or firewall before us does, concluded from what STUN servers answered (RFC 5780 §4). A server has two
// addresses, A and B, and two ports, p1 and p2.
//
//   mapping     Binding requests to A:p1, A:p2, B:p1, B:p2 from one socket: does the mapped address depend on where to?
//   filtering   from another socket, which talks to A:p1 only: do answers from B:p2 and from A:p2 come through?
//
// The second socket is thrown away: answers that the NAT did not expect can leave an entry behind in a Linux NAT that
// makes the next mapping of the same port look like another (measured: endpoint-independent taken for symmetric).

import { sameSocketAddress, type SocketAddress } from '../lib/address.ts'
import type { NatBehaviour } from '../lib/status.ts'

/**
 * An answer to a plain Binding request of the mapping socket. `local` is that socket as the host itself sees it: a host with
 * several addresses may send to each server from another.
 */
export type MappingTest = {
  readonly server: SocketAddress
  readonly local?: SocketAddress | undefined
  readonly mapped: SocketAddress
}

/** `unknown`: not asked, not finished, refused by the server, or answered from where it was not asked to. */
export type FilteringTest = 'answered' | 'silent' | 'unknown'

export type NatTests = {
  readonly mappings: readonly MappingTest[]
  /** B:p2 as the server names it; undefined for a server with one address. */
  readonly other?: SocketAddress | undefined
  /** A:p1, which the filtering socket talked to. */
  readonly server?: SocketAddress | undefined
  /** Asked to answer from B:p2. */
  readonly fromOther: FilteringTest
  /** Asked to answer from A:p2. */
  readonly fromOtherPort: FilteringTest
}

export const UNKNOWN_NAT: NatBehaviour = { mapping: 'unknown', filtering: 'unknown', udp: 'unknown' }
export const UDP_BLOCKED: NatBehaviour = { mapping: 'unknown', filtering: 'unknown', udp: 'blocked' }

/** @param tests with at least one attempt behind them: no mapping at all means that UDP is blocked. */
export function natBehaviour(tests: NatTests): NatBehaviour {
  if (tests.mappings.length === 0) return UDP_BLOCKED
  const mapping = mappingBehaviour(tests.mappings)
  const filtering = filteringBehaviour(tests)
  const open = mapping === 'none' && filtering === 'endpoint-independent'
  return { mapping, filtering: open ? 'none' : filtering, udp: 'open' }
}

export const isKnown = ({ udp, mapping, filtering }: NatBehaviour): boolean =>
  udp === 'open' && mapping !== 'unknown' && filtering !== 'unknown'

/** Whether both are known to differ; what was not found out this time proves nothing. */
export const isAnotherNat = (before: NatBehaviour, now: NatBehaviour): boolean =>
  (['mapping', 'filtering'] as const).some(
    (part) => before[part] !== 'unknown' && now[part] !== 'unknown' && before[part] !== now[part],
  )

const LOOK_AGAIN_MS = 30 * 60_000
const RETRY_MS = 30_000

/**
 * A firewall may open at any time; what a server with one address cannot tell is asked ever less often.
 * @param failures how often in a row something stayed unknown.
 */
export const lookAgainMs = ({ udp }: NatBehaviour, failures: number): number => {
  if (failures === 0) return LOOK_AGAIN_MS
  return udp === 'open' ? Math.min(LOOK_AGAIN_MS, RETRY_MS * 2 ** (failures - 1)) : RETRY_MS
}

/** Where else the mapping socket asks, once A:p1 has named B:p2. */
export function furtherServers(server: SocketAddress, other: SocketAddress | undefined): readonly SocketAddress[] {
  if (other === undefined) return []
  return [{ ...other, port: server.port }, other, { ...server, port: other.port }]
}

/** OTHER-ADDRESS is of use if both its address and its port differ from the server's. */
export const isUsefulOther = (server: SocketAddress, other: SocketAddress | undefined): other is SocketAddress =>
  other !== undefined &&
  other.family === server.family &&
  other.port !== 0 &&
  other.port !== server.port &&
  other.address !== server.address

/** How long after the first request its n-th repetition leaves: at 100 and 300 ms, then every 200 ms. */
export const retransmitAtMs = (repetition: number): number =>
  repetition <= DOUBLINGS
    ? INITIAL_RTO_MS * (2 ** repetition - 1)
    : retransmitAtMs(DOUBLINGS) + (repetition - DOUBLINGS) * INITIAL_RTO_MS * 2 ** (DOUBLINGS - 1)

/** Below the 500 ms of RFC 8489 §6.2.1: a gateway asks few servers, seldom, and waits for the answers. */
const INITIAL_RTO_MS = 100
const DOUBLINGS = 2

/** Repetitions within which an answer would have come: at 10 % loss each way all six tries fail once in 20,000. */
export const REPETITIONS = 5

/** @param rttMs to the server. @returns how long a test stays open until it counts as silent. */
export const silentAfterMs = (rttMs: number): number => retransmitAtMs(REPETITIONS) + Math.max(150, 2 * rttMs)

/** False if the wait was cut so short that an answer may still have been on its way: two tries need their time. */
export const isSilence = (waitedMs: number, rttMs: number): boolean => waitedMs >= retransmitAtMs(1) + 2 * rttMs

function mappingBehaviour(mappings: readonly MappingTest[]): NatBehaviour['mapping'] {
  if (mappings.every(({ mapped, local }) => local !== undefined && sameSocketAddress(mapped, local))) return 'none'
  // What was sent from two addresses has two mappings, whatever the NAT does.
  const pairs = mappings.flatMap((a, i) =>
    mappings
      .slice(i + 1)
      .filter((b) => a.local?.address === b.local?.address)
      .map((b) => relation(a, b)),
  )
  const has = (address: 'same-address' | 'other-address', mapped: 'same-mapping' | 'other-mapping'): boolean =>
    pairs.some((pair) => pair.address === address && pair.mapped === mapped)
  if (has('same-address', 'other-mapping')) return 'address-and-port-dependent'
  if (has('other-address', 'other-mapping'))
    // Without two ports of one address the two dependent kinds look alike; the worse is assumed, as peers must.
    return has('same-address', 'same-mapping') ? 'address-dependent' : 'address-and-port-dependent'
  return has('other-address', 'same-mapping') ? 'endpoint-independent' : 'unknown'
}

const relation = (a: MappingTest, b: MappingTest) =>
  ({
    address: a.server.address === b.server.address ? 'same-address' : 'other-address',
    mapped: sameSocketAddress(a.mapped, b.mapped) ? 'same-mapping' : 'other-mapping',
  }) as const

/** A server that does not answer at all is silent too; so silence counts only for an address that answered when asked. */
function filteringBehaviour({
  server,
  other,
  fromOther,
  fromOtherPort,
  mappings,
}: NatTests): NatBehaviour['filtering'] {
  if (server === undefined || other === undefined) return 'unknown'
  const answers = (address: string): boolean =>
    mappings.some((test) => test.server.address === address && test.server.port === other.port)
  const blocksOther = fromOther === 'silent' && answers(other.address)
  const blocksOtherPort = fromOtherPort === 'silent' && answers(server.address)
  if (fromOther === 'answered') return 'endpoint-independent'
  if (blocksOtherPort) return 'address-and-port-dependent'
  return blocksOther && fromOtherPort === 'answered' ? 'address-dependent' : 'unknown'
}
