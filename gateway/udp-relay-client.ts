// The gateway's sessions over the relay's UDP: asks for those that are wanted, binds WireGuard's port to them and keeps it
// bound, and says when packets to a peer would pass. It also binds what only the peer wants. One timer for all.

import { randomBytes } from 'node:crypto'
import { sameSocketAddress, socketAddress, type SocketAddress } from '../lib/address.ts'
import type { Log } from '../lib/log.ts'
import { onAbort } from '../lib/net/lifetime.ts'
import type { UdpSessionFrame } from '../lib/wire/signal.ts'
import { TRANSACTION_ID_BYTES, type StunMessage } from '../lib/wire/stun.ts'
import { UdpBinding } from './udp-binding.ts'

export type UdpRelayOptions = {
  /** From the WireGuard port of fm-udp. */
  readonly send: (datagram: Uint8Array, to: SocketAddress) => void
  /** Asks the relay for a session (`udp-request`). @returns false if it could not be asked. */
  readonly request: (node: string) => boolean
  /** Packets to this endpoint reach the peer, from now on; called again when the endpoint is another. */
  readonly onBound: (node: string, endpoint: SocketAddress) => void
  readonly onLost: (node: string) => void
  readonly log: Log
}

export type UdpRelay = {
  /** All the peers that a session is wanted with. */
  readonly want: (nodes: readonly string[]) => void
  /** The signal session is new: the relay may be another and know nothing, and we may be elsewhere. */
  readonly reask: () => void
  readonly onSession: (frame: UdpSessionFrame) => void
  readonly onEnd: (node: string, reason: string) => void
  /** @returns true if the message was for us. */
  readonly onStun: (message: StunMessage, datagram: Uint8Array, from: SocketAddress) => boolean
  /** Packets of this peer are missed: our own address may have changed, so it is bound anew at once. */
  readonly refresh: (node: string) => void
}

type Member = {
  wanted: boolean
  /** The peer's wish counts until then, by what the relay last said. */
  peerWantsUntilMs: number
  frame: UdpSessionFrame | undefined
  bindings: readonly UdpBinding[]
  /** What onBound was last told. */
  endpoint: SocketAddress | undefined
  askMs: number
  asks: number
}

/** Sessions are asked for again and again: so the relay tells the peer that we still want it. */
const REASK_MS = 60_000
const FIRST_REASK_MS = 5_000
/** Until the signal session is back. */
const RETRY_REQUEST_MS = 1_000
const PEER_WANTS_MS = 300_000
/** As many as the relay gives one gateway. */
const MAX_SESSIONS = 512
const MAX_SLEEP_MS = 1_000

export function openUdpRelay(options: UdpRelayOptions, signal: AbortSignal): UdpRelay {
  const { log } = options
  const members = new Map<string, Member>()
  let full = false
  let timer: NodeJS.Timeout | undefined

  const now = (): number => performance.now()
  const memberOf = (node: string): Member | undefined => {
    const known = members.get(node)
    if (known !== undefined || members.size >= MAX_SESSIONS) return known
    const member: Member = {
      wanted: false,
      peerWantsUntilMs: 0,
      frame: undefined,
      bindings: [],
      endpoint: undefined,
      askMs: 0,
      asks: 0,
    }
    members.set(node, member)
    return member
  }

  /** Tells of a change in whether, and where, packets pass. */
  const tell = (node: string, member: Member): void => {
    const endpoint = readyEndpoint(member)
    const before = member.endpoint
    member.endpoint = endpoint
    if (endpoint === undefined) {
      if (before !== undefined) options.onLost(node)
    } else if (before === undefined || !sameSocketAddress(before, endpoint)) options.onBound(node, endpoint)
  }
  const clear = (node: string, member: Member): void => {
    member.frame = undefined
    member.bindings = []
    tell(node, member)
  }

  const ask = (node: string, member: Member, nowMs: number): void => {
    if (!options.request(node)) {
      member.askMs = nowMs + RETRY_REQUEST_MS
      return
    }
    const waitMs = member.frame === undefined ? FIRST_REASK_MS * 2 ** member.asks : REASK_MS
    member.asks++
    member.askMs = nowMs + Math.min(REASK_MS, waitMs)
  }

  const step = (): void => {
    if (signal.aborted) return
    const nowMs = now()
    let nextMs = nowMs + MAX_SLEEP_MS
    for (const [node, member] of members) {
      if (!member.wanted && member.peerWantsUntilMs <= nowMs) {
        clear(node, member)
        members.delete(node)
        continue
      }
      if (member.wanted && member.askMs <= nowMs) ask(node, member, nowMs)
      for (const binding of member.bindings) {
        if (binding.nextMs <= nowMs) {
          const datagram = binding.step(nowMs, randomBytes(TRANSACTION_ID_BYTES))
          if (datagram !== undefined) options.send(datagram, binding.server)
        }
        nextMs = Math.min(nextMs, binding.nextMs)
      }
      tell(node, member)
      if (member.wanted) nextMs = Math.min(nextMs, member.askMs)
    }
    clearTimeout(timer)
    timer = setTimeout(step, Math.max(1, nextMs - now()))
  }
  onAbort(signal, () => clearTimeout(timer))

  return {
    want: (nodes) => {
      const wanted = new Set(nodes)
      for (const [node, member] of members) member.wanted = wanted.has(node)
      let without = 0
      for (const node of wanted) {
        const member = memberOf(node)
        if (member !== undefined) member.wanted = true
        else without++
      }
      if (without > 0 && !full) log.warn({ peers: without }, 'too many sessions over UDP; these peers have none')
      full = without > 0
      step()
    },
    reask: () => {
      for (const member of members.values()) {
        member.askMs = 0
        member.asks = 0
        for (const binding of member.bindings) binding.refresh(now())
      }
      step()
    },
    onSession: (frame) => {
      const member = memberOf(frame.node)
      if (member === undefined) return
      member.asks = 0
      member.peerWantsUntilMs = frame.wanted ? now() + PEER_WANTS_MS : 0
      const same = member.frame?.cookie === frame.cookie && member.frame.username === frame.username
      member.frame = frame
      if (!same) {
        const { username } = frame
        const cookie = Buffer.from(frame.cookie, 'base64')
        member.bindings = frame.endpoints.flatMap(({ address, port }) => {
          const server = socketAddress(address, port)
          return server === undefined ? [] : new UdpBinding(server, { username, cookie }, now())
        })
      }
      tell(frame.node, member)
      step()
    },
    onEnd: (node, reason) => {
      const member = members.get(node)
      if (member === undefined) return
      log.debug({ peer: node, why: reason }, 'no session over UDP')
      member.peerWantsUntilMs = 0
      clear(node, member)
      step()
    },
    onStun: (message, datagram, from) => {
      if (message.class !== 'success' && message.class !== 'error') return false
      for (const [node, member] of members) {
        const binding = member.bindings.find(({ server }) => sameSocketAddress(server, from))
        if (binding === undefined) continue
        switch (binding.answered(message, datagram, now(), Math.random())) {
          case 'unknown':
            log.info({ peer: node }, 'the relay forgot a session over UDP; asking for it again')
            clear(node, member)
            member.askMs = 0
            break
          case 'bound':
          case 'challenged':
          case 'ignored':
            break
        }
        step()
        return true
      }
      return false
    },
    refresh: (node) => {
      for (const binding of members.get(node)?.bindings ?? []) binding.refresh(now())
      step()
    },
  }
}

/** IPv4 first, where both pass. */
function readyEndpoint({ frame, bindings }: Member): SocketAddress | undefined {
  return bindings.find(
    ({ bound, server }) =>
      bound && frame?.endpoints.some((endpoint) => endpoint.ready && sameSocketAddress(endpoint, server)) === true,
  )?.server
}
