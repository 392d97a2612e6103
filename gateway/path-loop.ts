// Runs a Path (gateway/path.ts) for each peer: feeds it what arrives on the probe and echo sockets, does what it
// decides, and steps it when it asks to be stepped. One timer for all peers.

import { randomFillSync } from 'node:crypto'
import type { SocketAddress } from '../lib/address.ts'
import type { Log } from '../lib/log.ts'
import { onAbort } from '../lib/net/lifetime.ts'
import type { NatBehaviour, PathStatus, Rung } from '../lib/status.ts'
import { hasIntegrity, METHOD_BINDING, TRANSACTION_ID_BYTES, type StunMessage } from '../lib/wire/stun.ts'
import type { IsInside } from './candidates.ts'
import type { EchoServer } from './echo-server.ts'
import type { PathFinding } from './findings.ts'
import { Path, type PathAction } from './path.ts'
import { candidateStatus, isDoubtful, obstacleOf, reasonOf, silenceOf } from './path-reason.ts'
import type { Peer } from './peers.ts'
import type { ProbeSocket } from './probe-client.ts'
import type { Role } from './roles.ts'
import { encodeProbe, encodeProbeAnswer, probeKey, usernameOf } from './probe.ts'

/** What a path asks of the rest of the gateway. */
export type PathEffects = {
  /** Resolves when WireGuard has it. */
  readonly setEndpoint: (peer: Peer, to: SocketAddress) => Promise<void>
  readonly move: (peer: Peer, rung: Rung | 'cold', mtu: number | undefined, from: Rung | 'none' | 'cold') => void
  readonly call: (peer: Peer, reply: boolean) => void
  /** Ask whether the peer's devices know our key. */
  readonly ask: (peer: Peer) => void
  /** Nothing comes back from the peer: what carries the packets may be dead, or at another address, without knowing. */
  readonly suspect: (peer: Peer) => void
  /** A peer said what it is in its pool. */
  readonly role?: (peer: Peer, role: Role) => void
}

export type Paths = {
  /** The peers there are; those that stay keep their path. @param rungOf what carries traffic to a new one already. */
  readonly setPeers: (peers: readonly Peer[], rungOf: (node: string) => Rung | undefined) => void
  readonly ready: (node: string) => void
  /** False until the peer's devices are known to have our key. */
  readonly isReady: (node: string) => boolean
  /** Whether the pair is kept up now. */
  readonly isAwake: (node: string) => boolean
  /** Packets for the peer or from it, other than ours: the pair is in use. */
  readonly traffic: (node: string) => void
  /** Pairs that are kept up now. */
  readonly awake: () => readonly Peer[]
  /** @param reply whether it answers a call of ours. */
  readonly called: (node: string, reply: boolean) => void
  readonly setRelayOpen: (open: boolean) => void
  /** Packets to a peer pass over the relay's UDP, or no longer. */
  readonly setUdpBound: (node: string, bound: boolean) => void
  /** Peers that a session over the relay's UDP would be of use to. */
  readonly wantUdpRelay: () => readonly string[]
  readonly onStun: (message: StunMessage, datagram: Buffer, from: SocketAddress) => void
  /** @param interested whether the sender has traffic for us. */
  readonly onEchoRequest: (rung: Rung, from: string, interested: boolean) => void
  readonly onEchoReply: (rung: Rung, from: string, sequence: number) => void
  readonly onEchoRole: (from: string, role: Role) => void
  /** Our role is another: every peer with a path is told. */
  readonly tellRole: () => void
  /** Of pools whose path is kept up and not direct, or not answered any more. */
  readonly findings: () => readonly PathFinding[]
  /** Peers that nothing reaches. */
  readonly problems: () => readonly string[]
  /** @param endpointOf where WireGuard has a peer. */
  readonly status: (own: NatBehaviour, endpointOf: (node: string) => string | undefined) => readonly PathStatus[]
}

type Member = {
  peer: Peer
  readonly path: Path
  readonly key: Buffer
  /** Probes under way by transaction id (hex): when each left. */
  readonly probes: Map<string, number>
}

/** Answers later than the last so many probes are not counted. */
const MAX_PROBES_IN_FLIGHT = 512
/** Time between two looks at the clock, at the most, so that a path stepped by nobody is stepped anyway. */
const MAX_SLEEP_MS = 1_000
/** Later than this is no jitter. */
const LATE_MS = 50
/** However late we come: the peers wait for our answers to what they ask. */
const MAX_REST_MS = 1_000
/** When a new role is told; echoes repeat it from then on. */
const ROLE_REPEATS_MS = [0, 60, 200]

export function runPaths(
  options: {
    readonly privateKey: string
    readonly publicKey: string
    readonly probes: () => ProbeSocket
    readonly echoes: () => EchoServer
    /** Which addresses are the mesh's own: a probe from there came through a tunnel. */
    readonly isInside: IsInside
    readonly effects: PathEffects
    readonly coldAfterMs: number
    /** What is known of the NAT before us. */
    readonly nat?: () => NatBehaviour
    /** Pools whose paths are kept up without traffic. */
    readonly isWarm: (pool: string) => boolean
    readonly log: Log
  },
  signal: AbortSignal,
): Paths {
  const { privateKey, publicKey, effects, coldAfterMs, log } = options
  const ownUsername = usernameOf(publicKey)
  const members = new Map<string, Member>()
  const byUsername = new Map<string, Member>()
  const byLinkLocal = new Map<string, Member>()
  /** By pool. */
  let standbys: ReadonlyMap<string, readonly Member[]> = new Map()
  let relayOpen = false
  let timer: NodeJS.Timeout | undefined
  let stepping = false
  /** When the timer is due. */
  let dueMs = Infinity
  /** Until then only events step a path. */
  let restUntilMs = -Infinity

  const now = (): number => performance.now()

  const act = (member: Member, action: PathAction, nowMs: number): void => {
    switch (action.kind) {
      case 'probe': {
        const id = randomFillSync(Buffer.allocUnsafe(TRANSACTION_ID_BYTES))
        options.probes().send(encodeProbe(id, ownUsername, member.key), action.to, action.ttl)
        member.probes.set(id.toString('hex'), nowMs)
        if (member.probes.size > MAX_PROBES_IN_FLIGHT) member.probes.delete(member.probes.keys().next().value!)
        return
      }
      case 'echo':
        return options.echoes().send(action.rung, member.peer.linkLocal, action)
      case 'call':
        return effects.call(member.peer, action.reply)
      case 'ask':
        return effects.ask(member.peer)
      case 'suspect':
        return effects.suspect(member.peer)
      case 'endpoint':
        effects.setEndpoint(member.peer, action.to).then(
          () => {
            member.path.endpointSet(action.to, now())
            step(member)
          },
          (err: unknown) => log.error({ err, peer: member.peer.node }, 'the endpoint of a peer could not be set'),
        )
        return
      case 'move':
        log.info(
          {
            pool: member.peer.pool,
            peer: member.peer.node,
            path: action.rung,
            ...(action.mtu !== undefined && { mtu: action.mtu }),
            why: action.why,
            rttMs: member.path.ladder.rttMs,
          },
          'path moved',
        )
        return effects.move(member.peer, action.rung, action.mtu, member.path.ladder.cameFrom)
    }
  }

  /**
   * Steps every path that is due, then sleeps until the next is. An event that made a path due calls it too. On a machine
   * that has no time for us we come late: then we rest for as long, and what is silent meanwhile is asked the less often.
   */
  const step = (due?: Member): void => {
    if (signal.aborted || stepping) return
    stepping = true
    const nowMs = now()
    if (nowMs - dueMs >= LATE_MS) restUntilMs = nowMs + Math.min(nowMs - dueMs, MAX_REST_MS)
    const rests = due !== undefined && nowMs < restUntilMs
    let nextMs = nowMs + MAX_SLEEP_MS
    for (const member of members.values()) {
      if (member === due || (!rests && member.path.nextMs <= nowMs))
        for (const action of member.path.step(nowMs, Math.random())) act(member, action, nowMs)
      nextMs = Math.min(nextMs, member.path.nextMs)
    }
    stepping = false
    clearTimeout(timer)
    dueMs = Math.max(nextMs, restUntilMs)
    // Node cuts fractions off: a timer that is early finds nothing to do and waits again.
    timer = setTimeout(step, Math.max(1, Math.ceil(dueMs - now())))
  }
  onAbort(signal, () => clearTimeout(timer))

  const remove = (member: Member): void => {
    members.delete(member.peer.node)
    byUsername.delete(usernameOf(member.peer.wireguardKey))
    byLinkLocal.delete(member.peer.linkLocal)
  }

  const add = (peer: Peer, rung: Rung | 'cold'): void => {
    const controlling = publicKey < peer.wireguardKey
    const isLikely = (): boolean => {
      const obstacle = options.nat && obstacleOf(options.nat(), member.peer.announcement.nat)
      return obstacle === undefined || obstacle === 'one-nat'
    }
    const always = options.isWarm(peer.pool)
    const member: Member = {
      peer,
      path: new Path({ controlling, isLikely, rung, coldAfterMs, always, nowMs: now() }),
      key: probeKey(privateKey, peer.wireguardKey),
      probes: new Map(),
    }
    member.path.setRelayOpen(relayOpen)
    members.set(peer.node, member)
    byUsername.set(usernameOf(peer.wireguardKey), member)
    byLinkLocal.set(member.peer.linkLocal, member)
  }

  const withMember = (node: string, event: (path: Path) => void): void => {
    const member = members.get(node)
    if (member === undefined) return
    event(member.path)
    step(member)
  }

  /** Whoever may take the peer's place has a path too, before it is needed. */
  const wakeStandbys = (active: Member | undefined): void => {
    for (const { path } of standbys.get(active?.peer.standby === false ? active.peer.pool : '') ?? [])
      path.traffic(now())
  }

  const onRequest = (message: StunMessage, datagram: Buffer, from: SocketAddress): void => {
    const member = byUsername.get(message.username ?? '')
    if (member === undefined || !hasIntegrity(datagram, member.key) || options.isInside(from.address)) return
    options.probes().send(encodeProbeAnswer(message, from, member.key), from)
    member.path.probed(from, now())
    step(member)
  }

  const onAnswer = (message: StunMessage, datagram: Buffer, from: SocketAddress): void => {
    const id = Buffer.from(message.transactionId).toString('hex')
    for (const member of members.values()) {
      const sentMs = member.probes.get(id)
      if (sentMs === undefined) continue
      if (!hasIntegrity(datagram, member.key)) return
      member.probes.delete(id)
      member.path.probeAnswered(from, now() - sentMs, now())
      return step(member)
    }
  }

  return {
    setPeers: (peers, rungOf) => {
      const keyOf = new Map(peers.map((peer) => [peer.node, peer.wireguardKey]))
      for (const member of members.values())
        if (keyOf.get(member.peer.node) !== member.peer.wireguardKey) remove(member)
      for (const peer of peers) {
        if (members.get(peer.node)?.peer === peer) continue
        if (!members.has(peer.node)) add(peer, rungOf(peer.node) ?? 'cold')
        const member = members.get(peer.node)!
        member.peer = peer
        member.path.setCandidates(peer.candidates, now())
      }
      standbys = Map.groupBy(
        [...members.values()].filter(({ peer }) => peer.standby),
        ({ peer }) => peer.pool,
      )
      step()
    },
    ready: (node) => withMember(node, (path) => path.ready(now())),
    isReady: (node) => members.get(node)?.path.isReady === true,
    isAwake: (node) => (members.get(node)?.path.rung ?? 'cold') !== 'cold',
    traffic: (node) => {
      wakeStandbys(members.get(node))
      withMember(node, (path) => path.traffic(now()))
    },
    awake: () => [...members.values()].flatMap(({ peer, path }) => (path.rung === 'cold' ? [] : [peer])),
    called: (node, reply) => {
      wakeStandbys(members.get(node))
      withMember(node, (path) => path.called(reply, now()))
    },
    setRelayOpen: (open) => {
      relayOpen = open
      for (const { path } of members.values()) path.setRelayOpen(open)
      step()
    },
    setUdpBound: (node, bound) => withMember(node, (path) => path.setUdpBound(bound, now())),
    wantUdpRelay: () =>
      [...members.values()].filter(({ path }) => path.wantsUdpRelay(now())).map(({ peer }) => peer.node),
    onStun: (message, datagram, from) => {
      if (message.method !== METHOD_BINDING) return
      if (message.class === 'request') onRequest(message, datagram, from)
      else if (message.class === 'success') onAnswer(message, datagram, from)
    },
    onEchoRequest: (rung, from, interested) => {
      const member = byLinkLocal.get(from)
      if (member === undefined) return
      if (interested) wakeStandbys(member)
      member.path.echoRequested(rung, interested, now())
      step(member)
    },
    onEchoReply: (rung, from, sequence) => {
      const member = byLinkLocal.get(from)
      if (member === undefined) return
      member.path.echoReplied(rung, sequence, now())
      step(member)
    },
    onEchoRole: (from, role) => {
      const member = byLinkLocal.get(from)
      if (member !== undefined) effects.role?.(member.peer, role)
    },
    tellRole: () => {
      for (const afterMs of ROLE_REPEATS_MS)
        setTimeout(() => {
          for (const { path, peer } of signal.aborted ? [] : members.values())
            if (path.rung !== 'cold')
              options.echoes().tellRole(path.rung === 'none' ? 'relay-tcp' : path.rung, peer.linkLocal)
        }, afterMs).unref()
    },
    findings: () =>
      [...members.values()].flatMap(({ peer, path }): PathFinding[] => {
        if (peer.standby || path.rung === 'cold') return []
        if (isDoubtful(path.ladder, now())) return [{ pool: peer.pool, state: 'silent' }]
        return path.rung === 'direct' ? [] : [{ pool: peer.pool, state: 'relayed' }]
      }),
    problems: () =>
      [...members.values()].flatMap(({ peer, path }) => {
        if (peer.standby) return []
        const silence = silenceOf(path, now())
        return silence === '' ? [] : [`pool ${peer.pool} is not reached: ${silence} (gateway ${peer.node})`]
      }),
    status: (own, endpointOf) => {
      const nowMs = now()
      return [...members.values()].map(({ peer, path }) => {
        const { rung, sinceMs, rttMs, loss, mtu, history } = path.ladder
        const endpoint = rung === 'direct' ? endpointOf(peer.node) : undefined
        const unix = (ms: number): number => Math.round(Date.now() - (nowMs - ms))
        return {
          pool: peer.pool,
          node: peer.node,
          ...(peer.standby && { standby: true }),
          rung,
          since: unix(sinceMs),
          ...(rttMs === undefined || silenceOf(path, nowMs) !== '' ? {} : { rttMs: Math.round(rttMs * 100) / 100 }),
          ...(loss === undefined ? {} : { loss: Math.round(loss * 1000) / 1000 }),
          ...(mtu === undefined ? {} : { mtu }),
          reason: reasonOf(path, own, peer.announcement.nat, peer.pool, nowMs),
          ...(endpoint === undefined ? {} : { endpoint }),
          candidates: [...path.punch.candidates.values()].map((candidate) => candidateStatus(candidate, nowMs)),
          peerNat: peer.announcement.nat,
          history: history.map(({ atMs, rung, why }) => ({ at: unix(atMs), rung, why })),
        }
      })
    },
  }
}
