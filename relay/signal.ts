// Signalling between gateways (lib/wire/signal.ts): the relay hands each gateway's latest announcement to all others
// and carries calls from one to another. It checks who speaks and how much, not what is said: gateways sign what they
// announce, and their peers verify it. Pure: sessions come and go and speak, and what is to be sent is handed to `send`.

import type { Log } from '../lib/log.ts'
import type { Replica } from '../lib/replicas.ts'
import {
  decodeSignal,
  digestOf,
  encodeSignal,
  ProtocolError,
  readDigests,
  type SignalFrame,
  type SignedAnnouncement,
} from '../lib/wire/signal.ts'
import { createBucket, type Bucket } from './token-bucket.ts'

/** May `from` reach `to` over this relay? Both have proven who they are by their certificates. */
export type PairPolicy = (from: string, to: string) => boolean

/** A gateway's session: `node` is its certificate's, `address` where it comes from. */
export type SignalSession = { readonly node: string; readonly address: string }

export type SignallingOptions<S extends SignalSession> = {
  /** The relay's name, told to gateways. */
  readonly relay: string
  /** All relays, where there are several. */
  readonly replicas?: readonly Replica[]
  readonly mayReach: PairPolicy
  /** A gateway wants a session over UDP with another; without this the relay has none. */
  readonly onUdpRequest?: (from: string, to: string) => void
  readonly onGreeted?: (node: string) => void
  /** Announcements from before. */
  readonly known: ReadonlyMap<string, SignedAnnouncement>
  readonly save: (node: string, announcement: SignedAnnouncement) => void
  readonly remove: (node: string) => void
  readonly send: (session: S, frame: Buffer) => void
  readonly log: Log
}

/** A gateway that starts calls all its peers at once, and then seldom. */
const FRAMES = { perSecond: 64, burst: 1024 }
/** Each goes to all other gateways and to disk; a gateway makes one when its addresses change. */
const ANNOUNCEMENTS = { perSecond: 1, burst: 64 }
const MAX_ANNOUNCEMENTS = 20_000

type Known = { readonly announcement: SignedAnnouncement; readonly digest: string }
type Gateway = { readonly frames: Bucket; readonly announcements: Bucket; greeted: boolean }

export class Signalling<S extends SignalSession> {
  readonly #options: SignallingOptions<S>
  readonly #announcements: Map<string, Known>
  readonly #gateways = new Map<S, Gateway>()
  /** The latest session of each node. */
  readonly #byNode = new Map<string, S>()

  constructor(options: SignallingOptions<S>) {
    this.#options = options
    this.#announcements = new Map([...options.known].map(([node, announcement]) => [node, knownOf(announcement)]))
  }

  open(session: S, nowMs: number): void {
    const [frames, announcements] = [createBucket(FRAMES, nowMs), createBucket(ANNOUNCEMENTS, nowMs)]
    this.#gateways.set(session, { frames, announcements, greeted: false })
    this.#byNode.set(session.node, session)
  }

  close(session: S): void {
    this.#gateways.delete(session)
    if (this.#byNode.get(session.node) === session) this.#byNode.delete(session.node)
  }

  /** A node is gone for good: what it announced is handed out no more. */
  forget(node: string): void {
    if (this.#announcements.delete(node)) this.#options.remove(node)
  }

  /** @throws ProtocolError to end the session. */
  message(session: S, text: string, nowMs: number): void {
    const gateway = this.#gateways.get(session)
    if (gateway === undefined) return
    if (!gateway.frames.take(nowMs)) throw new ProtocolError(`more than ${FRAMES.perSecond} frames per second`)
    const frame = decodeSignal(text)
    if (frame === undefined) return
    if (!gateway.greeted) {
      if (frame.kind !== 'hello') throw new ProtocolError(`${frame.kind} before hello`)
      gateway.greeted = true
      this.#greet(session, readDigests(frame.known ?? ''))
      return this.#options.onGreeted?.(session.node)
    }
    switch (frame.kind) {
      case 'announce':
        if (!gateway.announcements.take(nowMs))
          throw new ProtocolError(`more than ${ANNOUNCEMENTS.burst} announcements at once`)
        return this.#announce(session, frame.node, frame.announcement)
      case 'ready':
      case 'call':
        return this.#pass(session, frame)
      case 'udp-request':
        return this.#requestUdp(session, frame.node)
      case 'hello':
      case 'welcome':
      case 'gone':
      case 'udp-session':
      case 'udp-end':
        throw new ProtocolError(`${frame.kind} is not for the relay`)
    }
  }

  /** Sends a frame to a gateway, if it is there. */
  tell(node: string, frame: SignalFrame): void {
    const session = this.#greeted(node)
    if (session !== undefined) this.#options.send(session, encode(frame))
  }

  /** @returns the session of a node that has said hello. */
  #greeted(node: string): S | undefined {
    const session = this.#byNode.get(node)
    return session !== undefined && this.#gateways.get(session)?.greeted === true ? session : undefined
  }

  #broadcast(node: string, announcement: SignedAnnouncement): void {
    const { mayReach, send } = this.#options
    const bytes = encode({ kind: 'announce', node, announcement })
    for (const [session, gateway] of this.#gateways)
      if (gateway.greeted && session.node !== node && mayReach(node, session.node)) send(session, bytes)
  }

  /** With hundreds of gateways that come back after an outage of ours, what each has already adds up. */
  #greet(session: S, has: ReadonlySet<string>): void {
    const { relay, replicas = [], mayReach, send } = this.#options
    const list = replicas.length > 0 && { replicas }
    send(session, encode({ kind: 'welcome', version: 1, relay, observedAddress: session.address, ...list }))
    for (const [node, { announcement, digest }] of this.#announcements)
      if (node !== session.node && !has.has(digest) && mayReach(node, session.node))
        send(session, encode({ kind: 'announce', node, announcement }))
  }

  #announce(session: S, node: string, announcement: SignedAnnouncement): void {
    if (node !== session.node) throw new ProtocolError(`announces ${node}, but its certificate is of ${session.node}`)
    const known = this.#announcements.get(node)
    if (known === undefined && this.#announcements.size >= MAX_ANNOUNCEMENTS)
      return this.#options.log.warn(
        { node },
        "too many nodes have announced themselves, this one is left out; remove those that are gone from announcements/ in the relay's state folder",
      )
    const next = knownOf(announcement)
    // A gateway that comes back says what all others know already.
    if (known?.digest === next.digest) return
    this.#announcements.set(node, next)
    this.#options.save(node, announcement)
    this.#broadcast(node, announcement)
  }

  #pass(session: S, frame: SignalFrame & { kind: 'ready' | 'call' }): void {
    const callee = this.#greeted(frame.node)
    const from = session.node
    if (callee !== undefined && this.#options.mayReach(from, frame.node))
      this.#options.send(callee, encode({ ...frame, node: from }))
    // The sender learns at once that nobody will answer.
    else this.#options.send(session, encode({ kind: 'gone', node: frame.node }))
  }

  #requestUdp({ node: from }: S, to: string): void {
    if (this.#options.onUdpRequest === undefined)
      return this.tell(from, { kind: 'udp-end', node: to, reason: 'this relay forwards nothing over UDP' })
    if (this.#greeted(to) !== undefined) this.#options.onUdpRequest(from, to)
    else this.tell(from, { kind: 'udp-end', node: to, reason: 'the peer has no session with this relay' })
  }
}

const knownOf = (announcement: SignedAnnouncement): Known => ({ announcement, digest: digestOf(announcement) })

const encode = (frame: SignalFrame): Buffer => Buffer.from(encodeSignal(frame))
