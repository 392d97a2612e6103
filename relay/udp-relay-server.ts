// Relaying over UDP: hands out sessions to pairs of gateways, binds their sides after a cookie has come back from where
// they are, and has the kernel forward between them; by a forwarder of our own where the kernel may not be used.

import { randomBytes } from 'node:crypto'
import { formatSocketAddress, sameSocketAddress, type SocketAddress } from '../lib/address.ts'
import { FAMILIES, type Family } from '../lib/cidr.ts'
import type { Log } from '../lib/log.ts'
import { pause, UsageError } from '../lib/net/lifetime.ts'
import type { UdpRelayStatus } from '../lib/status.ts'
import type { SignalFrame } from '../lib/wire/signal.ts'
import { createPrefixLimit } from './prefix-limit.ts'
import type { PairPolicy } from './signal.ts'
import { judge, usernameOf } from './udp-binding.ts'
import { openUserspaceForwarder } from './udp-forward-server.ts'
import { openKernelForwarder } from './udp-relay-loop.ts'
import {
  createPortPairs,
  type Bindings,
  type Forwarder,
  type ForwarderOptions,
  type Places,
  type PortRange,
} from './udp-relay.ts'
import { keepSessions } from './udp-sessions-loop.ts'
import { createUdpSessions, isWanted, readyFamilies, type Session, type Side } from './udp-sessions.ts'

export type UdpRelayOptions = {
  readonly stateDir: string
  readonly places: Places
  readonly ports: PortRange
  readonly mayReach: PairPolicy
  /** Over the signal session of a gateway, if it has one. */
  readonly tell: (node: string, frame: SignalFrame) => void
  /** Leaves the kernel out, for tests. */
  readonly userspace?: boolean
  readonly log: Log
}

export type UdpRelay = {
  /** A gateway asks for a session with another. */
  readonly request: (from: string, to: string) => void
  /** A gateway's signal session is new: it is told of its sessions again. */
  readonly greet: (node: string) => void
  /** Ends all sessions of a node that is gone for good. */
  readonly endNode: (node: string) => void
  readonly status: () => UdpRelayStatus
  /** After the signal aborted. */
  readonly closed: Promise<void>
}

/** A gateway of a large mesh binds hundreds of sessions when it starts, two requests for each. */
const LIMIT = { perSecond: 200, burst: 2000 }
const TICK_MS = 1_000
/** Pairs of ports tried for one session, where other programs hold some. */
const MAX_TRIES = 8
const COOKIE_BYTES = 32
const SILENT = 'a side has not been heard of for a minute'

export async function runUdpRelay(options: UdpRelayOptions, signal: AbortSignal): Promise<UdpRelay> {
  const { stateDir, places, ports, mayReach, tell, log } = options
  const key = randomBytes(COOKIE_BYTES)
  const sessions = createUdpSessions(createPortPairs(ports))
  const admit = createPrefixLimit(LIMIT, randomBytes(4).readInt32BE())
  const told = new WeakMap<Session, string>()
  /** Changes that are on their way into the kernel, by family and port. */
  const changing = new Map<string, Promise<void>>()

  const onStun = (datagram: Buffer, source: SocketAddress): void => {
    const nowMs = performance.now()
    if (!admit(source.address, nowMs)) return
    const verdict = judge(datagram, source, sessions.sideAt, places, key, nowMs)
    switch (verdict.kind) {
      case 'ignored':
        return
      case 'refused':
      case 'challenged':
        return forwarder.send(verdict.answer, verdict.port, source)
      case 'bound':
        return void bind(verdict.side, source, nowMs).then(
          () => forwarder.send(verdict.answer, verdict.port, source),
          (err: unknown) => log.warn({ err, node: verdict.side.node }, 'a UDP session could not be bound'),
        )
    }
  }
  const keeping = { stateDir, places, ports, sessions: () => sessions.kept(performance.now()), log }
  const kept = await keepSessions(keeping, signal)
  const restored = sessions.restore(kept.before, performance.now())
  const bindings = { 4: bindingsOf(restored, 4), 6: bindingsOf(restored, 6) }
  const { forwarder, reason } = await openForwarder({ ...options, bindings, onStun }, signal)
  for (const session of restored) if (!(await forwarder.open(session[0].port))) sessions.end(session)

  async function bind(side: Side, source: SocketAddress, nowMs: number): Promise<void> {
    const before = sessions.bind(side, source, nowMs)
    const pending = changing.get(`${source.family} ${side.port}`)
    const isKnown = before !== undefined && sameSocketAddress(before.place, source)
    if (!isKnown) kept.trigger()
    if (isKnown && (before.forwarded || pending !== undefined)) await pending
    else await change(source.family, side, source)
    sessions.forwarded(side, source.family)
    tellIfChanged(sessions.sessionOf(side))
  }
  function change(family: Family, { port }: Side, place: SocketAddress | undefined): Promise<void> {
    const name = `${family} ${port}`
    const changed = forwarder.bind(family, port, place).finally(() => {
      if (changing.get(name) === changed) changing.delete(name)
    })
    changing.set(name, changed)
    return changed
  }

  const frameFor = (side: Side, peer: Side, ready: readonly Family[]): SignalFrame => ({
    kind: 'udp-session',
    node: peer.node,
    username: usernameOf(side),
    cookie: side.cookie.toString('base64'),
    wanted: isWanted(peer, performance.now()),
    endpoints: FAMILIES.flatMap((family) => {
      const address = places[family]
      return address === undefined ? [] : { address, port: side.port, family, ready: ready.includes(family) }
    }),
  })
  function tellBoth(session: Session): void {
    const ready = readyFamilies(session)
    told.set(session, ready.join())
    const [a, b] = session
    tell(a.node, frameFor(a, b, ready))
    tell(b.node, frameFor(b, a, ready))
  }
  function tellIfChanged(session: Session): boolean {
    const changed = told.get(session) !== readyFamilies(session).join()
    if (changed) tellBoth(session)
    return changed
  }
  const tellOne = (node: string, session: Session): void => {
    const [a, b] = session
    tell(node, a.node === node ? frameFor(a, b, readyFamilies(session)) : frameFor(b, a, readyFamilies(session)))
  }
  const refuse = (from: string, to: string, reason: string): void => tell(from, { kind: 'udp-end', node: to, reason })

  const request = async (from: string, to: string): Promise<void> => {
    if (from === to || !mayReach(from, to) || !mayReach(to, from))
      return refuse(from, to, 'the relay does not allow it')
    for (let tries = 0; tries < MAX_TRIES; tries++) {
      const asked = sessions.ask(from, to, performance.now(), () => randomBytes(COOKIE_BYTES))
      if ('refused' in asked) return refuse(from, to, asked.refused)
      const { session, isNew } = asked
      if (!isNew || (await forwarder.open(session[0].port))) {
        if (isNew) kept.trigger()
        return tellBoth(session)
      }
      sessions.end(session)
    }
    refuse(from, to, 'the relay has no UDP ports free')
  }

  const end = (session: Session, reason = SILENT): void => {
    for (const side of session) for (const family of side.bound.keys()) drop(family, side)
    forwarder.close(session[0].port)
    sessions.end(session)
    kept.trigger()
    const [a, b] = session
    refuse(a.node, b.node, reason)
    refuse(b.node, a.node, reason)
  }
  const drop = (family: Family, side: Side): void =>
    void change(family, side, undefined).catch((err: unknown) =>
      log.warn({ err, node: side.node }, 'a UDP session could not be unbound'),
    )
  const tick = (): void => {
    const { ended, unbound } = sessions.expire(performance.now())
    if (unbound.length > 0) kept.trigger()
    for (const { side, family } of unbound) drop(family, side)
    for (const { side } of unbound) tellIfChanged(sessions.sessionOf(side))
    for (const session of ended) end(session)
  }
  const run = async (): Promise<void> => {
    while (!signal.aborted) {
      await pause(TICK_MS, signal)
      if (!signal.aborted) tick()
    }
  }

  return {
    request: (from, to) => void request(from, to),
    greet: (node) => {
      for (const session of sessions.doubt(node)) if (!tellIfChanged(session)) tellOne(node, session)
    },
    endNode: (node) => {
      for (const session of [...sessions.all()])
        if (session.some((side) => side.node === node)) end(session, `node ${node} was deleted`)
    },
    status: () => statusOf({ places, ports, forwarder, reason, all: sessions.all() }),
    closed: Promise.all([run(), forwarder.closed, kept.closed]).then(() => undefined),
  }
}

const bindingsOf = (sessions: readonly Session[], family: Family): Bindings =>
  new Map(
    sessions.flat().flatMap(({ port, bound }) => {
      const found = bound.get(family)
      return found === undefined ? [] : [[port, found.place] as const]
    }),
  )

/** The kernel where it can be used. @returns why it cannot. */
async function openForwarder(
  options: UdpRelayOptions & Pick<ForwarderOptions, 'onStun' | 'bindings'>,
  signal: AbortSignal,
): Promise<{ readonly forwarder: Forwarder; readonly reason: string | undefined }> {
  if (options.userspace === true) return { forwarder: openUserspaceForwarder(options, signal), reason: 'as told' }
  try {
    return { forwarder: await openKernelForwarder(options, signal), reason: undefined }
  } catch (err) {
    if (err instanceof UsageError) throw err
    options.log.warn({ err }, 'the kernel cannot forward UDP sessions; this process does, which is slower')
    return { forwarder: openUserspaceForwarder(options, signal), reason: (err as Error).message }
  }
}

function statusOf(parts: {
  readonly places: Places
  readonly ports: PortRange
  readonly forwarder: Forwarder
  readonly reason: string | undefined
  readonly all: Iterable<Session>
}): UdpRelayStatus {
  const { forwarder, ports, reason } = parts
  const { forwarded, unbound, lost } = forwarder.counts()
  return {
    forwarder: forwarder.kind,
    ...(reason === undefined ? {} : { reason }),
    addresses: FAMILIES.flatMap((family) => parts.places[family] ?? []),
    ports: `${ports.first}-${ports.last}`,
    sessions: [...parts.all].map((session) => ({
      nodes: [session[0].node, session[1].node],
      ready: readyFamilies(session).length > 0,
      bound: session.flatMap(({ node, bound }) =>
        [...bound.values()].map(({ place }) => ({ node, address: formatSocketAddress(place) })),
      ),
    })),
    forwarded: forwarded.packets,
    bytes: forwarded.bytes,
    unbound,
    lost,
    problems: forwarder.problems(),
  }
}
