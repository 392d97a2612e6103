// A planned hand-over that loses nothing. WireGuard accepts a pool's prefixes from one peer per device, and what is under
// way from one gateway must not meet a device that has moved them to the other. So the gateway that leaves first takes a
// way of its own, fm-leave: WireGuard inside the rung in use, which it shares with nobody.
//
//   leaving gateway O                  gateway R of another pool                     successor I, agents
//   "leave, to I"  ── rung ─▶          O's prefixes also on fm-leave
//   "try"          ── fm-leave ─▶      answers: a session stands
//   routes to R lead into fm-leave
//   "left"         ── rung ─▶          behind O's last packet on the rung:
//                                      the prefixes move to I on all rungs,
//                                      packets for the pool go to I           ──▶   I's kernel forwards them
//   "leaving" on the LAN once every R has confirmed, or in time  ─────────────────▶ I is active: its agent first, then all
//   forwards what still comes,
//   to I by its agent's route                                                       agents send to I, I to R on the rung
//
// R accepts from O on fm-leave and from I on the rungs for as long as agents may need. Each step holds without the next:
// whoever does not confirm goes on as it was, and R returns to O when I does not claim the role in time.

import { randomInt } from 'node:crypto'
import type { Log } from '../lib/log.ts'
import { pause } from '../lib/net/lifetime.ts'
import { CARRIERS } from '../lib/owned.ts'
import { decodeHandover, encodeHandover, type HandoverKind, type HandoverMessage } from './handover.ts'
import { createLeaveDevice } from './leave-device-loop.ts'
import type { Mesh } from './mesh-loop.ts'
import type { Peer } from './peers.ts'
import type { RoleKeeper } from './role-loop.ts'
import type { WireGuardPeer } from './wireguard.ts'

export type Handover = {
  /** We are active and `successor` will be: resolves when nothing depends on us any more, or the time is up. */
  readonly prepare: (successor: string) => Promise<void>
  /** @param device that it came through. @param from the sender's link-local address. */
  readonly onMessage: (device: string, from: string, datagram: Buffer) => void
}

/** For all peers together: a shutdown must not wait for long. */
const PREPARE_MS = 2_500
/** For peers that say nothing: they are gone, or know nothing of hand-overs. */
const SILENCE_MS = 1_000
const RESEND_MS = 60
/** What another processor was about to send as the route changed. */
const DRAIN_MS = 20
/** How long a successor may take to claim the role that it was given: others are being prepared meanwhile. */
const CLAIM_MS = 4_000
/** How long one that left is heard on fm-leave: agents that missed everything follow within a second or so. */
const KEEP_MS = 10_000

export function runHandover(
  options: {
    readonly mesh: Mesh
    /** Makes fm-leave, listening on a port, and keeps it until the signal aborts. */
    readonly openDevice: Parameters<typeof createLeaveDevice>[0]['open']
    readonly send: (device: string, to: string, datagram: Buffer) => void
    /** There are packets for a peer, or there will be. */
    readonly wake: (node: string) => void
    readonly roles: Pick<RoleKeeper, 'handOver' | 'forgetHandOver'>
    readonly log: Log
  },
  signal: AbortSignal,
): Handover {
  const { mesh, roles, log } = options
  /** Requests of ours that are not answered yet, by kind and the peer's link-local address. */
  const asked = new Map<string, (reply: HandoverMessage) => void>()
  /** By node: peers that we leave. */
  const left = new Map<string, WireGuardPeer>()
  /** By node: peers that leave. */
  const leaving = new Map<string, Leaving>()

  const peers = () => [...left.values(), ...[...leaving.values()].map(({ peer }) => wireGuardPeer(peer))]
  const device = createLeaveDevice({ open: options.openDevice, peers, log }, signal)

  // === We leave

  /** @returns the answer, if there is one in time. A peer that is still at it answers without its port. */
  const ask = async (to: string, over: string, message: HandoverMessage, deadline: Deadline) => {
    const key = `${message.kind} ${to}`
    const answered = new AbortController()
    let reply: HandoverMessage | undefined
    asked.set(key, (said) => {
      if (said.id !== message.id) return
      deadline.heard = true
      if (said.port === 0) return
      reply = said
      answered.abort()
    })
    const ended = AbortSignal.any([signal, answered.signal])
    const leftMs = () => (deadline.heard ? deadline.endMs : deadline.silentMs) - performance.now()
    while (!ended.aborted && leftMs() > 0) {
      options.send(over, to, encodeHandover(message))
      await pause(Math.min(RESEND_MS, leftMs()), ended)
    }
    asked.delete(key)
    return reply
  }

  /** @param rung the device of the rung in use. @returns whether the peer sends to the successor now. */
  const leave = async (to: Peer, rung: string, id: number, successor: string, beganMs: number): Promise<boolean> => {
    const address = to.linkLocal
    const deadline = { heard: false, silentMs: beganMs + SILENCE_MS, endMs: beganMs + PREPARE_MS }
    const asks = (kind: HandoverKind, over: string) =>
      ask(address, over, { kind, reply: false, id, successor, port: 0 }, deadline)
    const accepted = await asks('leave', rung)
    if (accepted === undefined) return false
    left.set(to.node, wireGuardPeer(to, `[${address}%${rung}]:${accepted.port}`))
    await device.apply()
    if ((await asks('try', CARRIERS.leave)) === undefined) return false
    await mesh.detour(to)
    return (await asks('left', rung)) !== undefined
  }

  const prepare = async (successor: string): Promise<void> => {
    const beganMs = performance.now()
    const id = randomInt(2 ** 32)
    const tunnels = (mesh.plan()?.peers ?? []).flatMap((peer) => {
      const rung = peer.standby ? undefined : mesh.rungOf(peer.node)
      return rung === undefined ? [] : [{ peer, rung: CARRIERS[rung] }]
    })
    // The device is made while they are asked.
    for (const { peer } of tunnels) left.set(peer.node, wireGuardPeer(peer))
    device.trigger()
    let confirmed = 0
    const all = tunnels.map(async ({ peer, rung }) => {
      try {
        if (await leave(peer, rung, id, successor, beganMs)) confirmed++
      } catch (err) {
        log.warn({ err, pool: peer.pool }, 'a pool could not be prepared for the hand-over')
      }
    })
    await Promise.race([Promise.all(all), pause(PREPARE_MS, signal)])
    const afterMs = Math.round(performance.now() - beganMs)
    log.info({ successor, peers: tunnels.length, confirmed, afterMs }, 'other pools were prepared for the hand-over')
  }

  // === A peer leaves

  /** Resolves when what it asks for is so. @returns whether it is. */
  const serve = async (
    { kind, id, successor }: HandoverMessage,
    from: string,
    tellBusy: () => void,
  ): Promise<boolean> => {
    const peers = mesh.plan()?.peers ?? []
    const peer = peers.find(({ allowedIps }) => allowedIps.includes(`${from}/128`))
    if (peer === undefined) return false
    const known = leaving.get(peer.node)
    const isKnown = known?.id === id
    switch (kind) {
      case 'leave': {
        const isPeer = peers.some(({ node, pool }) => node === successor && pool === peer.pool)
        if (!isKnown && (peer.standby || !isPeer)) return false
        // It may take a moment, in which we are not to be taken for dead.
        tellBusy()
        if (!isKnown && mesh.rungOf(successor) === undefined) {
          // It asks again; without a path to the successor everything that we send there meanwhile would wait for one.
          options.wake(successor)
          return false
        }
        if (!isKnown) accept({ id, peer, successor })
        await device.apply()
        return true
      }
      case 'try':
        return isKnown
      case 'left':
        if (!isKnown) return false
        try {
          await (known.moved ??= move(known))
        } catch (error) {
          // It asks again.
          known.moved = undefined
          throw error
        }
        return true
    }
  }

  const accept = (from: Pick<Leaving, 'id' | 'peer' | 'successor'>): void => {
    endTimers(leaving.get(from.peer.node))
    const timer = setTimeout(() => forget(from.peer.node), KEEP_MS).unref()
    leaving.set(from.peer.node, { ...from, timer, claimTimer: undefined, moved: undefined })
  }

  const move = async (known: Leaving): Promise<void> => {
    const { peer, successor } = known
    await pause(DRAIN_MS, signal)
    roles.handOver(peer.node, successor)
    clearTimeout(known.claimTimer)
    known.claimTimer = setTimeout(() => {
      roles.handOver(peer.node, undefined)
      mesh.trigger()
    }, CLAIM_MS).unref()
    log.info({ pool: peer.pool, peer: peer.node, successor }, 'the gateway of a pool hands over')
    await mesh.apply()
  }

  const forget = (node: string): void => {
    endTimers(leaving.get(node))
    leaving.delete(node)
    roles.forgetHandOver(node)
    mesh.trigger()
    device.trigger()
  }
  // What a predecessor left may carry packets for as long.
  setTimeout(device.trigger, KEEP_MS).unref()

  return {
    prepare,
    onMessage: (over, from, datagram) => {
      const message = decodeHandover(datagram)
      if (message === undefined || signal.aborted) return
      if (message.reply) return asked.get(`${message.kind} ${from}`)?.(message)
      const reply = (port: number) => options.send(over, from, encodeHandover({ ...message, reply: true, port }))
      serve(message, from, () => reply(0)).then(
        (done) => done && reply(device.port()),
        (err: unknown) => log.warn({ err, from }, 'a hand-over of another pool could not be served'),
      )
    },
  }
}

type Deadline = {
  /** Whether anything came back. */
  heard: boolean
  /** The end where nothing does. */
  readonly silentMs: number
  readonly endMs: number
}

type Leaving = {
  readonly id: number
  readonly peer: Peer
  readonly successor: string
  readonly timer: NodeJS.Timeout
  /** Ends what the successor was given, unless it claims the role by itself. */
  claimTimer: NodeJS.Timeout | undefined
  moved: Promise<void> | undefined
}

function endTimers(leaving: Leaving | undefined): void {
  clearTimeout(leaving?.timer)
  clearTimeout(leaving?.claimTimer)
}

const wireGuardPeer = ({ wireguardKey, allowedIps }: Peer, endpoint?: string): WireGuardPeer => ({
  publicKey: wireguardKey,
  allowedIps,
  keepaliveSeconds: 0,
  ...(endpoint !== undefined && { endpoint }),
})
