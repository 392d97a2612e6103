// Who announced what: the peers' announcements, verified when they come and kept on disk, beside ours.

import { X509Certificate } from 'node:crypto'
import { isDeepStrictEqual } from 'node:util'
import type { Clock } from '../lib/clock.ts'
import type { Log } from '../lib/log.ts'
import { GONE_AFTER_MS, Members, NOTHING_KEPT } from '../lib/members.ts'
import type { NodeIdentity } from '../lib/net/identity.ts'
import { digestsText, ProtocolError, type SignedAnnouncement } from '../lib/wire/signal.ts'
import { isNewer, judgeDates, MAX_PEERS, openAnnouncement, type Received } from './announcement.ts'
import { runOwnAnnouncement, type OwnFacts } from './own-announcement-loop.ts'
import type { GatewayState } from './state-loop.ts'

export type Announcements = {
  /** By node, in the order in which each came to the WireGuard key that it has; see PeerPlan. */
  readonly peers: ReadonlyMap<string, Received>
  /** Ours as it stands; undefined before the first `trigger`. */
  readonly own: () => SignedAnnouncement | undefined
  /** The peers' that we have; see `hello` in lib/wire/signal.ts. */
  readonly digests: () => string
  /** Ours may be another now. */
  readonly trigger: () => void
  /** @returns whether it is news; what does not verify is logged and dropped. */
  readonly receive: (node: string, signed: SignedAnnouncement) => boolean
  /**
   * The cluster may name other nodes now. Drops those of nodes that were deleted, for which only a newer certificate counts
   * from then on, and those of nodes that it has not named for a week, though it never did; this by itself every hour too.
   * @param agoMs a clock that does not jump.
   */
  readonly look: (agoMs?: number) => void
  /** Takes the new peers that were refused for their dates, where it is time; done by itself every 15 s. */
  readonly lookAtWaiting: () => void
}

/** A machine may join days before it is registered. */
const FORGET_MS = 7 * 24 * 3_600_000
const FORGET_LOOK_MS = 3_600_000
const MAX_WAITING = 256
const WAITING_LOOK_MS = 15_000

export function runAnnouncements(
  options: {
    /** May change its fields at any time; a `trigger` then signs ours anew. */
    readonly identity: Pick<NodeIdentity, 'node' | 'certificatePem' | 'keyPem' | 'caPem'>
    readonly state: Pick<
      GatewayState,
      'announcements' | 'nextSequence' | 'saveAnnouncement' | 'removeAnnouncement' | 'saveOrder'
    >
    /** What there is to announce. */
    readonly facts: () => OwnFacts
    /** Nodes that the cluster names now, with their UIDs. */
    readonly nodes: () => ReadonlyMap<string, string>
    /** By which certificates are judged. */
    readonly clock: Clock
    /** For how long after the end of its certificate a peer is known. */
    readonly peerGraceMs: number
    /** Some were dropped. */
    readonly onDropped: () => void
    /** One was refused because of its dates, or our clock, and is taken now. */
    readonly onLate: (node: string) => void
    /** Ours is another. */
    readonly onOwn: (announcement: SignedAnnouncement) => void
    readonly log: Log
  },
  signal: AbortSignal,
): Announcements {
  const { identity, state, log } = options
  const dates = { clock: options.clock, graceMs: options.peerGraceMs }
  const ca = new X509Certificate(identity.caPem)
  const peers = new Map<string, Received>()
  const signedBy = new Map<string, SignedAnnouncement>()
  /** Nodes that the cluster does not name. */
  const missingSinceMs = new Map<string, number>()
  /** Of nodes that were deleted, the date of the certificate that they had. */
  const endedMs = new Map<string, number>()
  let members = new Members(NOTHING_KEPT, true)
  let ownUid: string | undefined
  let lookingAgain: NodeJS.Timeout | undefined

  /** New peers whose certificates could not be judged, or are not valid: time may tell. */
  const waiting = new Map<string, SignedAnnouncement>()
  const wait = (node: string, signed: SignedAnnouncement): void => {
    waiting.delete(node)
    waiting.set(node, signed)
    dropOldest(waiting, MAX_WAITING)
  }

  const accept = (node: string, signed: SignedAnnouncement, isKept = false): boolean => {
    try {
      const received = openAnnouncement(signed, ca)
      if (received.node !== node || node === identity.node || !isNewer(received, peers.get(node))) return false
      if (received.certifiedMs <= (endedMs.get(node) ?? -Infinity))
        throw new ProtocolError('the node was deleted, and its certificate is from before: it has to join again')
      const isKnown = isKept || peers.has(node)
      try {
        judgeDates(received, isKnown, dates)
      } catch (error) {
        if (!isKnown) wait(node, signed)
        throw error
      }
      waiting.delete(node)
      options.clock.atLeast(received.certifiedMs)
      if (peers.size >= MAX_PEERS && !peers.has(node)) throw new Error(`over ${MAX_PEERS} gateways`)
      if (peers.get(node)?.wireguardKey !== received.wireguardKey) {
        peers.delete(node)
        signedBy.delete(node)
      }
      peers.set(node, received)
      signedBy.set(node, signed)
      return true
    } catch (err) {
      log.warn({ err, peer: node }, 'an announcement was refused')
      return false
    }
  }
  for (const [node, signed] of state.announcements) accept(node, signed, true)

  const own = runOwnAnnouncement({ ...options, nextSequence: state.nextSequence }, signal)

  /** What was refused before is not told again. */
  const lookAtWaiting = (): void => {
    for (const [node, signed] of waiting) {
      try {
        judgeDates(openAnnouncement(signed, ca), false, dates)
      } catch {
        continue
      }
      if (take(node, signed)) options.onLate(node)
    }
  }
  const lookAtDates = (): void => {
    for (const [node, received] of peers)
      try {
        judgeDates(received, true, dates)
      } catch (err) {
        log.warn({ err, peer: node }, 'a gateway is known no more')
        drop(node)
      }
  }
  const waitingTimer = setInterval(lookAtWaiting, WAITING_LOOK_MS).unref()

  const drop = (node: string): void => {
    for (const known of [peers, signedBy, missingSinceMs]) known.delete(node)
    state.removeAnnouncement(node)
  }
  const look = (agoMs = performance.now()): void => {
    const nodes = options.nodes()
    const uid = nodes.get(identity.node)
    // Objects that do not name us are not those of our cluster, or not all of them; if we are another, it is another API.
    if (uid === undefined) return
    if (ownUid !== undefined && uid !== ownUid) members = new Members(NOTHING_KEPT, true)
    ownUid = uid
    const before = peers.size
    lookAtDates()
    for (const node of members.look(nodes, Date.now(), agoMs).gone) {
      const { certifiedMs } = peers.get(node) ?? {}
      if (certifiedMs === undefined) continue
      endedMs.set(node, certifiedMs)
      dropOldest(endedMs, MAX_PEERS)
      drop(node)
      log.info({ peer: node }, 'a gateway whose node was deleted is dropped; it has to join again')
    }
    for (const node of peers.keys()) {
      const sinceMs = missingSinceMs.get(node) ?? agoMs
      if (nodes.has(node)) missingSinceMs.delete(node)
      else missingSinceMs.set(node, sinceMs)
      if (nodes.has(node) || agoMs - sinceMs < FORGET_MS) continue
      drop(node)
      log.info({ peer: node }, 'a gateway whose node never came is forgotten')
    }
    if (peers.size !== before) options.onDropped()
    clearTimeout(lookingAgain)
    if (members.isWaiting) lookingAgain = setTimeout(look, GONE_AFTER_MS + 100).unref()
  }
  const looking = setInterval(look, FORGET_LOOK_MS).unref()
  signal.addEventListener(
    'abort',
    () => {
      clearInterval(looking)
      clearInterval(waitingTimer)
      clearTimeout(lookingAgain)
    },
    { once: true },
  )

  const take = (node: string, signed: SignedAnnouncement): boolean => {
    const key = peers.get(node)?.wireguardKey
    if (!accept(node, signed)) return false
    state.saveAnnouncement(node, signed)
    if (peers.get(node)?.wireguardKey !== key) state.saveOrder([...peers.keys()])
    return true
  }

  return {
    peers,
    own: own.current,
    trigger: own.trigger,
    digests: () => digestsText(signedBy.values()),
    receive: (node, signed) => {
      // Verifying takes half a millisecond, and a relay that knows nothing of digests sends all there are.
      if (isDeepStrictEqual(signed, signedBy.get(node))) return false
      return take(node, signed)
    },
    look,
    lookAtWaiting,
  }
}

function dropOldest(entries: Map<string, unknown>, most: number): void {
  if (entries.size > most) entries.delete(entries.keys().next().value!)
}
