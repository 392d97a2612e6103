// One port of the router before us, kept mapped to WireGuard's: asked for by PCP or, where the router knows no better, by
// NAT-PMP, renewed at half of what was granted, and asked for again when the router has forgotten. Pure: `step` says what
// to send and `nextMs` when to call it again. Of an IPv6 address, which no router translates, PCP opens the firewall.
//
// A router without either protocol costs seven small packets every ten minutes. Nothing is given back at the end: the
// devices outlive the gateway, and its successor renews the same mapping with the same nonce (RFC 6887 §11.3).

import { socketAddress, type SocketAddress } from '../lib/address.ts'
import type { Family } from '../lib/cidr.ts'
import type { NatBehaviour } from '../lib/status.ts'
import {
  decodeMappingReply,
  encodeAnnounceRequest,
  encodeMapRequest,
  encodePmpAddressRequest,
  encodePmpMapRequest,
  IPPROTO_UDP,
  resultText,
  SUCCESS,
  type MappingReply,
} from '../lib/wire/pcp.ts'

export type MappingProtocol = 'pcp' | 'nat-pmp'

const ASKED_SECONDS = 7_200
/** RFC 6887 §15 lets a client distrust longer ones. */
const LIFETIME_MAX_MS = 24 * 3_600_000
/** When each request of a round leaves, from its start; RFC 6886 §3.1 begins with 250 ms and doubles. */
const REQUESTS_AT_MS = [0, 250, 750, 1_750]
const ROUND_MS = 3_750
/** RFC 6887 §11.2.1: a renewal that was not answered is repeated after half of what is left, but not sooner. */
const RENEW_MIN_MS = 4_000
/** Where nobody answered, or the router refused without saying for how long. */
const AGAIN_MS = 10 * 60_000
/** The first time that nobody answered: after a power cut a router may come up later than its LAN. Then twice as long. */
const UNANSWERED_MIN_MS = 15_000
const REFUSED_MIN_MS = 30_000
/** A router that restarted is noticed in this time, and its mapping made anew. */
const CHECK_MS = 60_000
/** The router's own notices ask for a round no more often than this. */
const NOTICE_MIN_MS = 2_000

/** A router's clock of its mappings, and ours when it told. */
export type Epoch = { readonly seconds: number; readonly atMs: number }

/** RFC 6887 §8.5. @returns false where the router's clock did not go on as ours did: it has lost its mappings. */
export function isContinued(before: Epoch, now: Epoch): boolean {
  const server = now.seconds - before.seconds
  const client = (now.atMs - before.atMs) / 1000
  if (server < -1) return false
  return client + 2 >= server - server / 16 && server + 2 >= client - client / 16
}

/**
 * Whether a mapping could be of use. @param behaviour what discovery found for this family; undefined for a family that
 * was not looked at.
 */
export function wantsMapping(family: Family, behaviour: NatBehaviour | undefined): boolean {
  if (behaviour === undefined) return true
  if (family === 4) return behaviour.mapping !== 'none'
  return behaviour.mapping !== 'none' || !['none', 'endpoint-independent'].includes(behaviour.filtering)
}

type Grant = { readonly external: SocketAddress; readonly expiresMs: number }
type Round = { readonly startedMs: number; sent: number }

export class PortMapping {
  /** When `step` wants to be called. */
  nextMs: number
  /** Which the router speaks, once it has answered. */
  protocol: MappingProtocol | undefined
  /** Why there is no mapping, for people; empty while there is one or it is not known yet. */
  problem = ''
  readonly #request: { readonly client: string; readonly nonce: Uint8Array; readonly internalPort: number }
  #round: Round | undefined
  #roundMs: number
  #checkMs = Infinity
  #noticedMs = -Infinity
  #grant: Grant | undefined
  /** What to ask for, so that peers find us where they did. */
  #wished: SocketAddress | undefined
  #epoch: Epoch | undefined
  #pmpAddress: string | undefined
  /** Rounds in a row. */
  #unansweredRounds = 0

  /** @param client the address that WireGuard's packets leave this node from. @param nonce 12 bytes, kept on disk. */
  constructor(client: string, internalPort: number, nonce: Uint8Array, nowMs: number) {
    this.#request = { client, nonce, internalPort }
    this.#roundMs = this.nextMs = nowMs
  }

  /** Where the outside reaches WireGuard's port. */
  get external(): SocketAddress | undefined {
    return this.#grant?.external
  }

  /** Asks the router whether it still knows: something failed that its restart would explain. */
  check(nowMs: number): void {
    if (this.#grant === undefined) return
    this.#checkMs = Math.min(this.#checkMs, nowMs)
    this.#plan()
  }

  /** @returns what to send to the router now. */
  step(nowMs: number): readonly Buffer[] {
    if (this.#grant !== undefined && nowMs >= this.#grant.expiresMs) this.#grant = undefined
    const requests: Buffer[] = []
    if (this.#round === undefined && nowMs >= this.#roundMs) this.#round = { startedMs: nowMs, sent: 0 }
    const round = this.#round
    if (round !== undefined) {
      if (nowMs >= round.startedMs + ROUND_MS) this.#unanswered('no router answers to PCP or NAT-PMP', nowMs)
      else if (nowMs >= round.startedMs + (REQUESTS_AT_MS[round.sent] ?? ROUND_MS))
        requests.push(...this.#requests(round.sent++))
    } else if (nowMs >= this.#checkMs) {
      this.#checkMs = nowMs + CHECK_MS
      requests.push(this.protocol === 'pcp' ? encodeAnnounceRequest(this.#request.client) : encodePmpAddressRequest())
    }
    this.#plan()
    return requests
  }

  /** A datagram that came from the router, asked for or not. @param random 0-1. */
  received(datagram: Uint8Array, nowMs: number, random: number): void {
    const reply = decodeMappingReply(datagram)
    if (reply === undefined) return
    this.#unansweredRounds = 0
    this.#read(reply, nowMs, random)
    this.#plan()
  }

  /** The router, or what is in its place, has no such port. */
  unreachable(nowMs: number): void {
    if (this.#round === undefined) return
    this.#unanswered('the router has neither PCP nor NAT-PMP', nowMs)
    this.#plan()
  }

  #requests(sent: number): readonly Buffer[] {
    const wish = { ...this.#request, external: this.#wished, lifetimeSeconds: ASKED_SECONDS }
    const pmp = [encodePmpAddressRequest(), encodePmpMapRequest(wish)]
    if (this.protocol === 'nat-pmp') return pmp
    const pcp = encodeMapRequest(wish)
    const mayBeOlder = this.protocol === undefined && sent > 0 && !this.#request.client.includes(':')
    return mayBeOlder ? [pcp, pmp[0]!] : [pcp]
  }

  #read(reply: MappingReply, nowMs: number, random: number): void {
    switch (reply.kind) {
      case 'unsupported-version':
        if (this.#round === undefined || this.protocol !== undefined) return
        if (reply.version !== 0) return this.#refused(`the router speaks version ${reply.version} of PCP`, 0, nowMs)
        this.protocol = 'nat-pmp'
        this.#askAgain(nowMs)
        return
      case 'pcp-map': {
        const { nonce, internalPort } = this.#request
        if (reply.protocol !== IPPROTO_UDP || reply.internalPort !== internalPort) return
        if (!Buffer.from(nonce).equals(reply.nonce) || this.#round === undefined) return
        this.protocol = 'pcp'
        this.#epoch = { seconds: reply.epochSeconds, atMs: nowMs }
        if (reply.result === SUCCESS) this.#granted(reply.external, reply.lifetimeSeconds, nowMs, random)
        else this.#refused(`the router refuses: ${resultText('pcp', reply.result)}`, reply.lifetimeSeconds, nowMs)
        return
      }
      case 'pmp-address':
        if (this.protocol === 'pcp') return
        if (reply.result !== SUCCESS) return this.#pmpRefused(reply.result, nowMs)
        this.#pmpAddress = reply.address
        if (this.#round === undefined) {
          if (this.#grant !== undefined && this.#grant.external.address !== reply.address) this.#askAgain(nowMs)
        } else if (this.protocol === undefined) {
          this.protocol = 'nat-pmp'
          this.#askAgain(nowMs)
        }
        return this.#continue(reply.epochSeconds, nowMs)
      case 'pmp-map': {
        if (this.protocol !== 'nat-pmp' || reply.internalPort !== this.#request.internalPort) return
        if (this.#round === undefined || this.#pmpAddress === undefined) return
        this.#epoch = { seconds: reply.epochSeconds, atMs: nowMs }
        const external = socketAddress(this.#pmpAddress, reply.externalPort)
        if (reply.result === SUCCESS) this.#granted(external, reply.lifetimeSeconds, nowMs, random)
        else this.#pmpRefused(reply.result, nowMs)
        return
      }
      case 'pcp-announce':
        return this.#continue(reply.epochSeconds, nowMs)
    }
  }

  #granted(external: SocketAddress | undefined, seconds: number, nowMs: number, random: number): void {
    if (external === undefined || external.port === 0 || UNSPECIFIED.includes(external.address) || seconds === 0)
      return this.#refused('the router has no address for the outside', 0, nowMs)
    const lifetimeMs = Math.min(seconds * 1000, LIFETIME_MAX_MS)
    this.#grant = { external, expiresMs: nowMs + lifetimeMs }
    this.#wished = external
    this.#round = undefined
    this.#roundMs = nowMs + Math.max(RENEW_MIN_MS, lifetimeMs * (1 / 2 + random / 8))
    this.#checkMs = nowMs + CHECK_MS
    this.problem = ''
  }

  #pmpRefused(result: number, nowMs: number): void {
    const seconds = PMP_TRANSIENT.includes(result) ? PMP_TRANSIENT_SECONDS : 0
    this.#refused(`the router refuses: ${resultText('nat-pmp', result)}`, seconds, nowMs)
  }

  /** @param seconds how long it will, as far as the router says. */
  #refused(problem: string, seconds: number, nowMs: number): void {
    this.#grant = undefined
    this.problem = problem
    this.#end(nowMs + Math.min(AGAIN_MS, Math.max(REFUSED_MIN_MS, seconds === 0 ? AGAIN_MS : seconds * 1000)))
  }

  #unanswered(problem: string, nowMs: number): void {
    const leftMs = this.#grant === undefined ? undefined : this.#grant.expiresMs - nowMs
    if (leftMs !== undefined) return this.#end(nowMs + Math.max(RENEW_MIN_MS, leftMs / 2))
    this.problem = problem
    this.protocol = undefined
    this.#end(nowMs + Math.min(AGAIN_MS, UNANSWERED_MIN_MS * 2 ** this.#unansweredRounds++))
  }

  #end(againMs: number): void {
    this.#round = undefined
    this.#roundMs = againMs
  }

  /** A sign of life of the router: is it the one that we knew? */
  #continue(seconds: number, nowMs: number): void {
    const now = { seconds, atMs: nowMs }
    const continued = this.#epoch !== undefined && isContinued(this.#epoch, now)
    this.#epoch = now
    if (this.#round !== undefined || (continued && this.#grant !== undefined)) return
    if (nowMs - this.#noticedMs < NOTICE_MIN_MS) return
    this.#noticedMs = nowMs
    this.#askAgain(nowMs)
  }

  #askAgain(nowMs: number): void {
    this.#round = undefined
    this.#roundMs = nowMs
  }

  #plan(): void {
    const round = this.#round
    if (round !== undefined) this.nextMs = round.startedMs + (REQUESTS_AT_MS[round.sent] ?? ROUND_MS)
    else this.nextMs = Math.min(this.#roundMs, this.#grant === undefined ? Infinity : this.#checkMs)
    if (this.#grant !== undefined) this.nextMs = Math.min(this.nextMs, this.#grant.expiresMs)
  }
}

/** Network failure and out of resources; NAT-PMP does not say for how long. */
const PMP_TRANSIENT = [3, 4]
const PMP_TRANSIENT_SECONDS = 60
const UNSPECIFIED = ['0.0.0.0', '::']
