// All relays as one: whichever is asked for a node reaches it, by a session of its own or through the replica that has one
// (forward.ts). Who is to end sends agents to the others and lets streams go on to their end.

import type { IncomingMessage } from 'node:http'
import type { Duplex } from 'node:stream'
import type { KeyPair } from '../lib/certificates.ts'
import type { Log } from '../lib/log.ts'
import { pause } from '../lib/net/lifetime.ts'
import { rendezvousOrder } from '../lib/rendezvous.ts'
import { nameOf, type Replica } from '../lib/replicas.ts'
import { openForwardClient, type ReplicaCredentials } from './forward-client.ts'
import { runForwardServer } from './forward-server.ts'
import { FORWARD_PATH } from './forward-target.ts'
import { createWays, type NodeWays } from './forward.ts'
import type { DialNode } from './node-dial.ts'
import { ownCredentials } from './own-credentials.ts'
import { followReplicas, type ReplicaLink } from './replicas-client.ts'
import { runReplicaServer } from './replicas-server.ts'
import { GROUP_RELAYS } from './replicas.ts'
import type { OpsSessions } from './session-server.ts'

export type ReplicasOptions = {
  /** The other relays; none where there is only this one. */
  readonly others: readonly Replica[]
  readonly authority: KeyPair
  /** The sessions of this relay; they tell what changes. */
  readonly sessions: (onPresence: (node: string, here: boolean) => void) => OpsSessions
  readonly log: Log
}

export type Replicas = NodeWays & {
  readonly sessions: OpsSessions
  /** Of a caller who is a replica, on one of its paths. */
  readonly upgrade: (request: IncomingMessage, stream: Duplex, head: Buffer, address: string) => void
  readonly list: () => readonly ReplicaLink[]
  /** Streams through this relay, with those that it opened by others and that others opened by it. */
  readonly streams: () => number
  /** Agents go to other relays. Resolves when the last stream is over, or at the deadline. */
  readonly drain: (deadlineMs: number) => Promise<void>
  readonly closed: Promise<void>
}

const SUBJECT = { commonName: 'fulmar-relay', organization: GROUP_RELAYS }
const LOOK_MS = 50
/** What a client has not read yet when a stream is over leaves in this time. */
const LINGER_MS = 1_000

export function runReplicas(options: ReplicasOptions, signal: AbortSignal): Replicas {
  const { others, authority, log } = options
  const byName = new Map(others.map((replica) => [nameOf(replica), replica]))
  const client = ownCredentials(authority, SUBJECT, Date.now)
  const credentials: ReplicaCredentials = async () => {
    const { certificatePem: cert, keyPem: key } = await client()
    return { cert, key, ca: authority.certificatePem, minVersion: 'TLSv1.3' }
  }
  const open = new Set<Duplex>()
  const counted =
    (dial: DialNode): DialNode =>
    async (...asked) => {
      const stream = await dial(...asked)
      open.add(stream)
      stream.once('close', () => open.delete(stream))
      return stream
    }

  const presence = runReplicaServer({ here: () => sessions.here(), lost: () => sessions.lost }, log, signal)
  const sessions = options.sessions(presence.changed)
  const forwarded = runForwardServer(counted(sessions.dial), log, signal)
  const forward = openForwardClient(credentials, log, signal)
  const links = followReplicas({ others, credentials, onLost: forward.drop, log }, signal)
  const ways = createWays({
    own: { dial: sessions.dial, absence: sessions.absence, lostAt: (node) => sessions.lost.get(node) },
    holders: (node) => rendezvousOrder(node, links.holders(node)),
    lostAt: links.lostAt,
    forward: (replica, ...asked) => forward.dial(byName.get(replica)!, ...asked),
    now: Date.now,
  })

  return {
    sessions,
    dial: counted(ways.dial),
    absence: ways.absence,
    lostAt: ways.lostAt,
    upgrade(request, ...more) {
      const to = request.url?.split('?', 1)[0] === FORWARD_PATH ? forwarded : presence
      to.upgrade(request, ...more)
    },
    list: links.list,
    streams: () => open.size,
    async drain(deadlineMs) {
      sessions.drain('this relay is about to stop')
      const startedMs = performance.now()
      log.info({ streams: open.size, seconds: deadlineMs / 1000 }, 'relay waits for its streams to end')
      const hadStreams = open.size > 0
      while (open.size > 0 && performance.now() - startedMs < deadlineMs) await pause(LOOK_MS, signal)
      if (open.size > 0) log.warn({ streams: open.size }, 'streams did not end in time')
      else if (hadStreams) await pause(LINGER_MS, signal)
    },
    closed: Promise.all([sessions, presence, forwarded, forward, links].map(({ closed }) => closed)).then(
      () => undefined,
    ),
  }
}
