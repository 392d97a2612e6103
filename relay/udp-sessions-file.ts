// The relay's sessions over UDP as they are kept on disk, so that a relay that is restarted goes on with them: JSON of the
// addresses and ports that they are for, and of each session its even port and its two sides. What cannot be read, and what
// was kept for other addresses or ports, is nothing: gateways ask anew.

import { formatSocketAddress, parseSocketAddress, type SocketAddress } from '../lib/address.ts'
import type { Places, PortRange } from './udp-relay.ts'

export type KeptSide = {
  readonly node: string
  /** 32 bytes, base64. */
  readonly cookie: string
  /** It asked for the session not long ago. */
  readonly wanted: boolean
  /** One per family at most. */
  readonly places: readonly SocketAddress[]
}
/** `port`: the even one, of the first side. */
export type KeptSession = { readonly port: number; readonly sides: readonly [KeptSide, KeptSide] }

export const formatSessions = (places: Places, ports: PortRange, sessions: readonly KeptSession[]): string =>
  JSON.stringify({
    of: ofText(places, ports),
    sessions: sessions.map(({ port, sides }) => ({
      port,
      sides: sides.map((side) => ({ ...side, places: side.places.map(formatSocketAddress) })),
    })),
  })

export function readSessions(text: string, places: Places, ports: PortRange): readonly KeptSession[] {
  try {
    const { of, sessions } = JSON.parse(text) as { readonly of?: unknown; readonly sessions?: unknown }
    if (of !== ofText(places, ports) || !Array.isArray(sessions)) return []
    return sessions.flatMap((session: unknown) => readSession(session, places) ?? [])
  } catch {
    return []
  }
}

const ofText = (places: Places, { first, last }: PortRange): string =>
  `${places[4] ?? ''} ${places[6] ?? ''} ${first}-${last}`

function readSession(value: unknown, places: Places): KeptSession | undefined {
  const { port, sides } = (value ?? {}) as { readonly port?: unknown; readonly sides?: unknown }
  if (!Number.isInteger(port) || !Array.isArray(sides)) return undefined
  const [a, b, ...more] = sides.map((side: unknown) => readSide(side, places))
  return a === undefined || b === undefined || more.length > 0 ? undefined : { port: Number(port), sides: [a, b] }
}

function readSide(value: unknown, own: Places): KeptSide | undefined {
  const { node, cookie, wanted, places } = (value ?? {}) as Readonly<Record<string, unknown>>
  if (typeof node !== 'string' || typeof cookie !== 'string' || !Array.isArray(places)) return undefined
  const known = places.flatMap((place: unknown) => parseSocketAddress(String(place)) ?? [])
  return { node, cookie, wanted: wanted === true, places: known.filter(({ family }) => own[family] !== undefined) }
}
