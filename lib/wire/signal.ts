// Control frames between a gateway and the relay: one JSON text message each on wss://relay/fulmar/v1/signal.
//
//   gateway -> relay   hello       who speaks, once, first; and which announcements it has already
//                      announce    what peers need to reach it, signed (the relay cannot forge or read more than it says)
//                      ready       to one peer: your keys are set here, packets of yours are welcome
//                      call        to one peer: our NAT is open for you, open yours and say so; then both probe
//                      udp-request have the relay's kernel forward between me and this peer
//   relay -> gateway   welcome     the relay's name, the address that it sees, and which relays there are
//                      announce    of every other gateway: at first all that it does not have, then as they change
//                      ready, call from a peer; `node` is then who sent it, by its certificate
//                      gone        in answer to ready and call: that peer has no session (its last announcement stays valid)
//                      udp-session to both gateways of a pair, whoever asked: what each must know of their session over
//                                  UDP; again whenever that changes
//                      udp-end     there is no such session, or no longer
//
// Unknown kinds and unknown fields are ignored, so that versions may differ by one.

import { createHash } from 'node:crypto'
import { socketAddress, type SocketAddress } from '../address.ts'
import { readReplicas, type Replica } from '../replicas.ts'

export const SIGNAL_PATH = '/fulmar/v1/signal'
/** A frame longer than this closes the session. */
export const MAX_SIGNAL_BYTES = 64 * 1024

/** An announcement and the proof that the named node made it, for its peers to read and verify. Base64 throughout. */
export type SignedAnnouncement = {
  /** The node's certificate, DER. */
  readonly certificate: string
  readonly payload: string
  readonly signature: string
}

/** Of 48 bits: two that differ are taken for one once in 10^14 times, and until the next change. */
const DIGEST_CHARACTERS = 8

export const digestOf = ({ certificate, payload, signature }: SignedAnnouncement): string =>
  createHash('sha256').update(`${certificate} ${payload} ${signature}`).digest('base64url').slice(0, DIGEST_CHARACTERS)

/** One after another: 8 bytes for an announcement of 1000, since a relay that restarts hears them of all at once. */
export const digestsText = (announcements: Iterable<SignedAnnouncement>): string =>
  Array.from(announcements, digestOf).join('')

export function readDigests(text: string): ReadonlySet<string> {
  const digests = new Set<string>()
  for (let i = 0; i < text.length; i += DIGEST_CHARACTERS) digests.add(text.slice(i, i + DIGEST_CHARACTERS))
  return digests
}

/** A place of the relay that stands for the peer: what is sent there reaches it while `ready`, both sides being bound. */
export type UdpEndpoint = SocketAddress & { readonly ready: boolean }

/** What one side of a relayed session knows of it; see lib/wire/udp-bind.ts for what it does with that. */
export type UdpSessionFrame = {
  readonly kind: 'udp-session'
  readonly node: string
  /** How to name oneself to the relay. */
  readonly username: string
  /** A secret of this side and the relay: 32 bytes, base64. */
  readonly cookie: string
  /** The peer asked for it within the last minutes: it wants this side bound. */
  readonly wanted: boolean
  /** At most one per address family. */
  readonly endpoints: readonly UdpEndpoint[]
}

export type SignalFrame =
  /** `known`: digests of announcements that need not be sent, see `digestsText`. */
  | { readonly kind: 'hello'; readonly version: 1; readonly role: 'gateway'; readonly known?: string }
  | {
      readonly kind: 'welcome'
      readonly version: 1
      readonly relay: string
      readonly observedAddress: string
      /** All relays, where there are several. */
      readonly replicas?: readonly Replica[]
    }
  | { readonly kind: 'announce'; readonly node: string; readonly announcement: SignedAnnouncement }
  /** `reply` is false where the sender wants a ready, or a call, in return. */
  | { readonly kind: 'ready'; readonly node: string; readonly reply: boolean }
  | { readonly kind: 'call'; readonly node: string; readonly reply: boolean }
  | { readonly kind: 'gone'; readonly node: string }
  | { readonly kind: 'udp-request'; readonly node: string }
  | UdpSessionFrame
  | { readonly kind: 'udp-end'; readonly node: string; readonly reason: string }

export const encodeSignal = (frame: SignalFrame): string => JSON.stringify(frame)

/** @returns undefined for a kind this version does not know. @throws ProtocolError for anything malformed. */
export function decodeSignal(text: string): SignalFrame | undefined {
  const frame = parseObject(text)
  switch (frame['kind']) {
    case 'hello':
      expect(frame['role'] === 'gateway', 'hello: role')
      return {
        kind: 'hello',
        version: 1,
        role: 'gateway',
        ...(frame['known'] !== undefined && { known: name(frame, 'known', MAX_SIGNAL_BYTES) }),
      }
    case 'welcome':
      return {
        kind: 'welcome',
        version: 1,
        relay: name(frame, 'relay'),
        observedAddress: name(frame, 'observedAddress'),
        ...replicasOf(frame),
      }
    case 'announce': {
      const signed = frame['announcement']
      expect(isObject(signed), 'announce: announcement')
      return {
        kind: 'announce',
        node: name(frame, 'node'),
        announcement: {
          certificate: name(signed, 'certificate', 8192),
          payload: name(signed, 'payload', 32768),
          signature: name(signed, 'signature', 1024),
        },
      }
    }
    case 'ready':
      return { kind: 'ready', node: name(frame, 'node'), reply: frame['reply'] === true }
    case 'call':
      return { kind: 'call', node: name(frame, 'node'), reply: frame['reply'] === true }
    case 'gone':
      return { kind: 'gone', node: name(frame, 'node') }
    case 'udp-request':
      return { kind: 'udp-request', node: name(frame, 'node') }
    case 'udp-session':
      return {
        kind: 'udp-session',
        node: name(frame, 'node'),
        username: name(frame, 'username', 64),
        cookie: name(frame, 'cookie', 64),
        wanted: frame['wanted'] === true,
        endpoints: endpointsOf(frame),
      }
    case 'udp-end':
      return { kind: 'udp-end', node: name(frame, 'node'), reason: name(frame, 'reason') }
    default:
      return undefined
  }
}

function replicasOf(frame: Record<string, unknown>): { readonly replicas?: readonly Replica[] } {
  const replicas = readReplicas(frame['replicas'])
  return replicas === undefined ? {} : { replicas }
}

/** The peer broke the protocol; the connection is closed. */
export class ProtocolError extends Error {
  readonly code = 'FULMAR_PROTOCOL'
  override readonly name = 'ProtocolError'
}

function parseObject(text: string): Record<string, unknown> {
  expect(text.length <= MAX_SIGNAL_BYTES, `frame of ${text.length} bytes`)
  let value: unknown
  try {
    value = JSON.parse(text)
  } catch (cause) {
    throw new ProtocolError('not JSON', { cause })
  }
  expect(isObject(value), 'not an object')
  return value
}

const isObject = (value: unknown): value is Record<string, unknown> =>
  typeof value === 'object' && value !== null && !Array.isArray(value)

function expect(condition: boolean, what: string): asserts condition {
  if (!condition) throw new ProtocolError(`signal frame: ${what}`)
}

/** One per family. */
const MAX_ENDPOINTS = 2

function endpointsOf(frame: Record<string, unknown>): readonly UdpEndpoint[] {
  const list: unknown = frame['endpoints']
  expect(Array.isArray(list) && list.length <= MAX_ENDPOINTS, 'udp-session: endpoints')
  return list.map((item: unknown) => {
    expect(isObject(item), 'udp-session: endpoint')
    const place = socketAddress(name(item, 'address'), whole(item, 'port', 65535))
    expect(place !== undefined && place.port !== 0, 'udp-session: endpoint')
    return { ...place, ready: item['ready'] === true }
  })
}

function name(frame: Record<string, unknown>, key: string, maxLength = 253): string {
  const value = frame[key]
  expect(typeof value === 'string' && value.length > 0 && value.length <= maxLength, `${String(frame['kind'])}: ${key}`)
  return value
}

function whole(frame: Record<string, unknown>, key: string, max: number): number {
  const value = frame[key]
  expect(
    typeof value === 'number' && Number.isInteger(value) && value >= 0 && value <= max,
    `${String(frame['kind'])}: ${key}`,
  )
  return value
}
