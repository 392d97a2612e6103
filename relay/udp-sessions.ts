// The sessions that the relay's UDP ports carry: which pairs have one, what their ports are, where each side is bound and
// until when. Pure: time and randomness are arguments, and what the kernel must do about it is told in return.
//
// A session begins when either gateway asks and ends when a side has been unbound for a minute: a gateway that wants it no
// longer, or cannot use it, just falls silent.

import type { SocketAddress } from '../lib/address.ts'
import { FAMILIES, type Family } from '../lib/cidr.ts'
import { otherPort, type PortPairs } from './udp-relay.ts'
import type { KeptSession, KeptSide } from './udp-sessions-file.ts'

export type Side = {
  readonly node: string
  /** Of the relay; stands for this side. */
  readonly port: number
  /** 32 bytes. */
  readonly cookie: Buffer
  readonly bound: Map<Family, Bound>
  /** When it was last bound in any family, or when the session began. */
  aliveMs: number
  /** When it last asked for the session. */
  askedMs: number
  /** Of a relay that ran before: the gateway has not been heard of since. */
  kept: boolean
}
/**
 * `forwarded`: the kernel sends packets there, or to where the side was before. `confirmed`: the gateway bound it in its
 * present signal session.
 */
type Bound = { readonly place: SocketAddress; untilMs: number; forwarded: boolean; confirmed: boolean }
/** The side with the even port first. */
export type Session = readonly [Side, Side]

export type Expired = {
  readonly ended: readonly Session[]
  /** Sides that fell silent, with where they were bound. */
  readonly unbound: readonly { readonly side: Side; readonly family: Family; readonly place: SocketAddress }[]
}

/** Three refreshes of a gateway, one every 20 s. */
const BINDING_LIFE_MS = 60_000
/** From a side's last binding, or from the session's beginning. */
const SIDE_IDLE_MS = 60_000
/** Gateways ask every minute for what they want. */
const ASKED_LIFE_MS = 150_000
/** A gateway in a mesh of some hundred sites that no direct path leads to. */
const MAX_SESSIONS_PER_GATEWAY = 512

export type UdpSessions = {
  /** The session of a pair, a new one if need be. @returns the reason why there is none. */
  readonly ask: (
    from: string,
    to: string,
    nowMs: number,
    random: () => Buffer,
  ) => { readonly session: Session; readonly isNew: boolean } | { readonly refused: string }
  readonly sideAt: (port: number) => Side | undefined
  readonly sessionOf: (side: Side) => Session
  /** @returns what was there before. */
  readonly bind: (side: Side, place: SocketAddress, nowMs: number) => Readonly<Bound> | undefined
  /** The kernel forwards to where the side is bound in this family. */
  readonly forwarded: (side: Side, family: Family) => void
  /**
   * A gateway began anew, and may be elsewhere: what it had bound counts again when it binds it again. Not so the first time
   * after this relay began anew, since then that is why it did.
   */
  readonly doubt: (node: string) => readonly Session[]
  readonly expire: (nowMs: number) => Expired
  /** Goes on with sessions of a relay that ran before, where their ports are free. @returns them. */
  readonly restore: (kept: readonly KeptSession[], nowMs: number) => readonly Session[]
  readonly kept: (nowMs: number) => readonly KeptSession[]
  readonly end: (session: Session) => void
  readonly all: () => Iterable<Session>
  readonly count: () => number
}

/** @param ports their number bounds the sessions. */
export function createUdpSessions(ports: PortPairs): UdpSessions {
  const byPair = new Map<string, Session>()
  const byPort = new Map<number, Side>()
  const perGateway = new Map<string, number>()
  const countOf = (node: string): number => perGateway.get(node) ?? 0
  const tally = (session: Session, by: number): void => {
    for (const { node } of session) {
      const count = countOf(node) + by
      if (count === 0) perGateway.delete(node)
      else perGateway.set(node, count)
    }
  }
  const sessionOf = ({ port }: Side): Session => {
    const even = port & ~1
    return [byPort.get(even)!, byPort.get(even + 1)!]
  }
  const add = (session: Session): void => {
    byPair.set(pairOf(session[0].node, session[1].node), session)
    for (const side of session) byPort.set(side.port, side)
    tally(session, 1)
  }
  const end = (session: Session): void => {
    if (byPort.get(session[0].port) !== session[0]) return
    byPair.delete(pairOf(session[0].node, session[1].node))
    for (const { port } of session) byPort.delete(port)
    ports.free(session[0].port)
    tally(session, -1)
  }

  return {
    ask(from, to, nowMs, random) {
      const known = byPair.get(pairOf(from, to))
      if (known !== undefined) {
        known.find(({ node }) => node === from)!.askedMs = nowMs
        return { session: known, isNew: false }
      }
      const full = [from, to].find((node) => countOf(node) >= MAX_SESSIONS_PER_GATEWAY)
      if (full !== undefined) return { refused: `${full} has ${MAX_SESSIONS_PER_GATEWAY} sessions already` }
      const port = ports.take()
      if (port === undefined) return { refused: `all ${ports.total} sessions of the relay are in use` }
      const side = (node: string, port: number): Side => ({
        node,
        port,
        cookie: random(),
        bound: new Map(),
        aliveMs: nowMs,
        askedMs: node === from ? nowMs : -Infinity,
        kept: false,
      })
      const session: Session = [side(from, port), side(to, otherPort(port))]
      add(session)
      return { session, isNew: true }
    },
    sideAt: (port) => byPort.get(port),
    sessionOf,
    bind(side, place, nowMs) {
      const before = side.bound.get(place.family)
      const { forwarded = false, confirmed = false } = before ?? {}
      side.bound.set(place.family, { place, untilMs: nowMs + BINDING_LIFE_MS, forwarded, confirmed })
      side.aliveMs = nowMs
      return before
    },
    forwarded({ bound }, family) {
      const now = bound.get(family)
      if (now !== undefined) Object.assign(now, { forwarded: true, confirmed: true })
    },
    doubt(node) {
      const sessions = [...byPair.values()].filter((session) => session.some((side) => side.node === node))
      for (const side of sessions.flat()) {
        if (side.node !== node) continue
        if (!side.kept) for (const bound of side.bound.values()) bound.confirmed = false
        side.kept = false
      }
      return sessions
    },
    expire(nowMs) {
      const ended: Session[] = []
      const unbound: Expired['unbound'][number][] = []
      for (const session of byPair.values()) {
        for (const side of session) {
          for (const [family, { place, untilMs }] of side.bound) {
            if (untilMs > nowMs) continue
            side.bound.delete(family)
            unbound.push({ side, family, place })
          }
          if (side.bound.size > 0) side.aliveMs = nowMs
        }
        if (session.some(({ aliveMs }) => nowMs - aliveMs >= SIDE_IDLE_MS)) ended.push(session)
      }
      return { ended, unbound }
    },
    restore(kept, nowMs) {
      const restored: Session[] = []
      for (const { port, sides } of kept) {
        const [a, b] = sides
        if (a.node === b.node || byPair.has(pairOf(a.node, b.node)) || !ports.claim(port)) continue
        const session: Session = [restoredSide(a, port, nowMs), restoredSide(b, otherPort(port), nowMs)]
        add(session)
        restored.push(session)
      }
      return restored
    },
    kept: (nowMs) =>
      Array.from(byPair.values(), ([a, b]) => ({ port: a.port, sides: [keptSide(a, nowMs), keptSide(b, nowMs)] })),
    end,
    all: () => byPair.values(),
    count: () => byPair.size,
  }
}

const keptSide = (side: Side, nowMs: number): KeptSide => ({
  node: side.node,
  cookie: side.cookie.toString('base64'),
  wanted: isWanted(side, nowMs),
  places: Array.from(side.bound.values(), ({ place }) => place),
})

const restoredSide = ({ node, cookie, wanted, places }: KeptSide, port: number, nowMs: number): Side => ({
  node,
  port,
  cookie: Buffer.from(cookie, 'base64'),
  bound: new Map(
    places.map((place) => [
      place.family,
      { place, untilMs: nowMs + BINDING_LIFE_MS, forwarded: true, confirmed: true },
    ]),
  ),
  aliveMs: nowMs,
  askedMs: wanted ? nowMs : -Infinity,
  kept: true,
})

/** Families in which packets pass, both ways. */
export const readyFamilies = (session: Session): readonly Family[] =>
  FAMILIES.filter((family) =>
    session.every(({ bound }) => {
      const { forwarded = false, confirmed = false } = bound.get(family) ?? {}
      return forwarded && confirmed
    }),
  )

export const isWanted = ({ askedMs }: Side, nowMs: number): boolean => nowMs - askedMs < ASKED_LIFE_MS

/** Names have no spaces: they are those of Kubernetes nodes, from certificates. */
const pairOf = (a: string, b: string): string => (a < b ? `${a} ${b}` : `${b} ${a}`)
