// The path to one peer, decided: which rung of the ladder carries traffic, when to probe, echo and move. Pure: events
// come in as calls, `step` gives back what to do and `nextMs` when to step again; time and randomness are arguments.
//
//   relay  ── echo answered ──▶  carries traffic  ◀── direct silent, relay answers ──┐
//   direct ── probe answered ─▶ endpoint set ─▶ echoes, small and full ─▶ carries ───┘
//
// Two rules keep WireGuard from stalling 5 s on lost or crossing handshakes. Nothing is sent to a peer before it said
// `ready` (its device knows our key). And only the controlling side, the one with the lower key, sends first on a rung;
// the other waits until an echo request came through it. Both then validate and move each for itself.

import { formatSocketAddress, type SocketAddress } from '../lib/address.ts'
import { backoffMs } from '../lib/backoff.ts'
import type { Rung } from '../lib/status.ts'
import type { Candidate, CandidateKind } from './announcement.ts'
import { RungHealth } from './rung-health.ts'

export type PathAction =
  | { readonly kind: 'probe'; readonly to: SocketAddress; readonly ttl: number | undefined }
  | { readonly kind: 'echo'; readonly rung: Rung; readonly sequence: number; readonly full: boolean }
  /** Ask the peer to probe at the same time. */
  | { readonly kind: 'call' }
  | { readonly kind: 'endpoint'; readonly to: SocketAddress }
  | { readonly kind: 'move'; readonly rung: Rung; readonly why: string }

export type TriedCandidate = {
  readonly kind: CandidateKind | 'peer-reflexive'
  readonly address: SocketAddress
  probes: number
  rttMs: number | undefined
  answeredMs: number
  /** WireGuard did not get through although probes did: not chosen again in this attempt. */
  refused: boolean
}

/** An echo per path in use. */
export const ECHO_INTERVAL_MS = 500
/** After a miss: this many more, this far apart, before the path counts as dead; 10 % loss does not flap then. */
export const BURST_ECHOES = 5
export const BURST_INTERVAL_MS = 50
const BRING_UP_INTERVAL_MS = 100
/** The side that is not controlling speaks first after all if it was not spoken to for so long. */
const PATIENCE_MS = 1_500

const PROBE_INTERVAL_MS = 50
const PROBE_FAST_MS = 2_000
const PROBE_SLOW_INTERVAL_MS = 200
const ATTEMPT_MS = 5_000
/** Where nothing carries traffic yet, the relay does so soonest: probes and handshakes do not compete with it at first. */
const RELAY_HEAD_START_MS = 300
/** Openers die on the way: they open our own NAT without reaching the peer's, which might take them for strangers. */
const OPENER_TTLS = [2, 3, 4]
const OPENER_LEAD_MS = 30
/** WireGuard repeats a lost handshake after 5 s; a candidate whose probes were answered gets that second chance. */
const VALIDATION_MS = 6_500
/** What counts as "now" for echoes on a rung that the other side set up. */
const FRESH_MS = 1_500
const RETRY = { baseMs: 1_000, capMs: 60_000 }
/** A pair that was direct before is tried again at least this often. */
const RETRY_KNOWN = { baseMs: 1_000, capMs: 8_000 }
/** A direct path that fails again so soon after it came up must wait longer before it carries traffic again. */
const FLAP_MS = 30_000
const HOLD_DOWN = { baseMs: 1_000, capMs: 60_000 }
const MAX_LEARNED_CANDIDATES = 16
/** A step that comes this much too late means that we did not run; silence in that time is forgiven. */
const STALL_MS = 100

type Attempt = { readonly startedMs: number; nextProbeMs: number; openersLeft: boolean }

export class Path {
  readonly controlling: boolean
  /** The rung that carries traffic. */
  rung: Rung | 'none'
  sinceMs: number
  /** What made the last move, for people. */
  why = ''
  readonly candidates = new Map<string, TriedCandidate>()
  attempts = 0
  lastAttemptEndMs: number | undefined

  readonly #health: Record<Rung, RungHealth> = {
    direct: new RungHealth(),
    'relay-udp': new RungHealth(),
    'relay-tcp': new RungHealth(),
  }
  #actions: PathAction[] = []
  #sequence = 0
  #readySinceMs: number | undefined
  #relayOpen = false
  #attempt: Attempt | undefined
  #nextAttemptMs = -Infinity
  #calledMs = -Infinity
  /** The candidate being validated, and since when WireGuard has it for the peer's endpoint. */
  #chosen: { readonly candidate: TriedCandidate; setMs: number | undefined } | undefined
  #suspectSinceMs: number | undefined
  #wasDirect: boolean
  #falls = 0
  #promotedMs = -Infinity
  #holdDownUntilMs = -Infinity
  #plannedMs = Infinity

  /** @param rung which the kernel's route points to now: after a restart of ours, what carries traffic is kept. */
  constructor(options: { controlling: boolean; rung: Rung | 'none'; nowMs: number }) {
    this.controlling = options.controlling
    this.rung = options.rung
    this.sinceMs = options.nowMs
    this.#wasDirect = options.rung === 'direct'
  }

  // === Events

  /** The addresses that the peer announces; what was learned stays. */
  setCandidates(candidates: readonly Candidate[], nowMs: number): void {
    const known = new Set(candidates.map(({ address }) => formatSocketAddress(address)))
    let news = false
    for (const [text, { kind }] of this.candidates) if (kind !== 'peer-reflexive' && !known.has(text)) this.candidates.delete(text)
    for (const { kind, address } of candidates) {
      const text = formatSocketAddress(address)
      if (this.candidates.get(text)?.kind === kind) continue
      this.candidates.set(text, { kind, address, probes: 0, rttMs: undefined, answeredMs: -Infinity, refused: false })
      news = true
    }
    if (!news) return
    this.#nextAttemptMs = Math.min(this.#nextAttemptMs, nowMs)
    this.attempts = Math.min(this.attempts, 1)
  }

  /** The peer's devices know our key: packets to it will not be wasted. */
  ready(nowMs: number): void {
    this.#readySinceMs ??= nowMs
  }

  setRelayOpen(open: boolean): void {
    this.#relayOpen = open
  }

  /** The peer started to probe: so do we, at once, or one side's probes would die in the other's NAT. */
  called(nowMs: number): void {
    this.ready(nowMs)
    this.#calledMs = nowMs
    if (this.rung !== 'direct' && this.#attempt === undefined && !this.#leavesToRelay(nowMs)) this.#begin(nowMs)
  }

  /** An authenticated probe came from this address: the peer is reachable there, whatever it announces. */
  probed(from: SocketAddress, nowMs: number): void {
    this.ready(nowMs)
    const text = formatSocketAddress(from)
    let candidate = this.candidates.get(text)
    if (candidate === undefined) {
      const learned = [...this.candidates].filter(([, { kind }]) => kind === 'peer-reflexive')
      if (learned.length >= MAX_LEARNED_CANDIDATES) this.candidates.delete(learned[0]![0])
      candidate = { kind: 'peer-reflexive', address: from, probes: 0, rttMs: undefined, answeredMs: -Infinity, refused: false }
      this.candidates.set(text, candidate)
    }
    if (this.rung === 'direct' || this.#leavesToRelay(nowMs)) return
    if (this.#attempt === undefined) this.#begin(nowMs)
    if (candidate.answeredMs < this.#attempt!.startedMs) this.#probe(candidate, undefined)
  }

  probeAnswered(from: SocketAddress, rttMs: number, nowMs: number): void {
    const candidate = this.candidates.get(formatSocketAddress(from))
    if (candidate === undefined) return
    candidate.rttMs = rttMs
    candidate.answeredMs = nowMs
  }

  /**
   * WireGuard has the endpoint that an action asked for. Nothing goes through the device before: a handshake without
   * an endpoint is lost, and the next one 5 s away.
   */
  endpointSet(to: SocketAddress, nowMs: number): void {
    if (this.#chosen?.candidate.address === to) this.#chosen.setMs = nowMs
  }

  echoRequested(rung: Rung, nowMs: number): void {
    this.ready(nowMs)
    this.#health[rung].lastRequestMs = nowMs
  }

  echoReplied(rung: Rung, sequence: number, nowMs: number): void {
    this.#health[rung].replied(sequence, nowMs)
  }

  // === Decisions

  step(nowMs: number, random: number): readonly PathAction[] {
    this.#forgiveStall(nowMs)
    this.#watch(nowMs)
    this.#attemptDirect(nowMs, random)
    this.#promote(nowMs)
    for (const rung of RUNGS) this.#echo(rung, nowMs)
    this.#plannedMs = this.#next(nowMs)
    const actions = this.#actions
    this.#actions = []
    return actions
  }

  /** When to step again if no event comes before. */
  get nextMs(): number {
    return this.#plannedMs
  }

  get rttMs(): number | undefined {
    return this.rung === 'none' ? undefined : this.#health[this.rung].rttMs
  }

  get trying(): boolean {
    return this.#attempt !== undefined
  }

  get nextAttemptMs(): number {
    return this.#nextAttemptMs
  }

  /** The rung in use does not answer, and no other does either. */
  get silent(): boolean {
    return this.#suspectSinceMs !== undefined
  }

  #forgiveStall(nowMs: number): void {
    const late = nowMs - this.#plannedMs
    if (late < STALL_MS) return
    for (const rung of RUNGS) this.#health[rung].forgive(late)
    if (this.#suspectSinceMs !== undefined) this.#suspectSinceMs += late
  }

  /** Leaves a rung that fell silent, but only for one that answers: if the peer's gateway process is down, none does. */
  #watch(nowMs: number): void {
    if (this.rung === 'none') return
    const health = this.#health[this.rung]
    const silentSince = health.silentSinceMs(nowMs)
    if (silentSince === undefined) {
      this.#suspectSinceMs = undefined
      return
    }
    this.#suspectSinceMs ??= nowMs
    const suspectMs = nowMs - this.#suspectSinceMs
    if (suspectMs < BURST_ECHOES * BURST_INTERVAL_MS + health.timeoutMs) return
    const other = RUNGS.find((rung) => rung !== this.rung && this.#health[rung].lastReplyMs >= this.#suspectSinceMs!)
    if (other === undefined) return
    if (this.rung === 'direct') {
      this.#falls = nowMs - this.#promotedMs < FLAP_MS ? this.#falls + 1 : 1
      this.#holdDownUntilMs = nowMs + backoffMs(HOLD_DOWN, this.#falls, 1)
      this.#nextAttemptMs = this.#holdDownUntilMs
      this.attempts = 0
    }
    this.#move(other, `${this.rung} answered no echo for ${Math.round(nowMs - silentSince)} ms`, nowMs)
  }

  /** Probes every address of the peer until one works, then sets it and lets echoes through the device decide. */
  #attemptDirect(nowMs: number, random: number): void {
    const suspectMs = this.#suspectSinceMs === undefined ? 0 : nowMs - this.#suspectSinceMs
    if (this.rung === 'direct' && suspectMs < BURST_ECHOES * BURST_INTERVAL_MS) {
      this.#attempt = undefined
      this.#chosen = undefined
      return
    }
    if (this.#readySinceMs === undefined || this.candidates.size === 0) return
    if (this.#attempt === undefined) {
      if (nowMs < this.#nextAttemptMs || this.#leavesToRelay(nowMs)) return
      this.#begin(nowMs)
    }
    const attempt = this.#attempt!
    if (nowMs - attempt.startedMs > ATTEMPT_MS && this.#chosen === undefined) {
      this.#attempt = undefined
      this.lastAttemptEndMs = nowMs
      this.#nextAttemptMs = nowMs + backoffMs(this.#wasDirect ? RETRY_KNOWN : RETRY, this.attempts, random)
      return
    }
    if (nowMs >= attempt.nextProbeMs) this.#probeAll(attempt, nowMs)
    if (this.controlling) this.#choose(attempt, nowMs)
  }

  #leavesToRelay(nowMs: number): boolean {
    return this.rung === 'none' && this.#relayOpen && nowMs - this.#readySinceMs! < RELAY_HEAD_START_MS
  }

  #begin(nowMs: number): void {
    this.#attempt = { startedMs: nowMs, nextProbeMs: nowMs, openersLeft: true }
    this.attempts++
    for (const candidate of this.candidates.values()) {
      candidate.probes = 0
      candidate.refused = false
    }
    if (nowMs - this.#calledMs > ATTEMPT_MS) this.#actions.push({ kind: 'call' })
  }

  #probeAll(attempt: Attempt, nowMs: number): void {
    if (attempt.openersLeft) {
      attempt.openersLeft = false
      for (const ttl of OPENER_TTLS) for (const candidate of this.candidates.values()) this.#probe(candidate, ttl)
      attempt.nextProbeMs = nowMs + OPENER_LEAD_MS
      return
    }
    for (const candidate of this.candidates.values()) this.#probe(candidate, undefined)
    const fast = nowMs - attempt.startedMs < PROBE_FAST_MS && this.#chosen === undefined
    attempt.nextProbeMs = nowMs + (fast ? PROBE_INTERVAL_MS : PROBE_SLOW_INTERVAL_MS)
  }

  #probe(candidate: TriedCandidate, ttl: number | undefined): void {
    candidate.probes++
    this.#actions.push({ kind: 'probe', to: candidate.address, ttl })
  }

  #choose(attempt: Attempt, nowMs: number): void {
    const setMs = this.#chosen?.setMs
    if (setMs !== undefined && nowMs - setMs > VALIDATION_MS) {
      this.#chosen!.candidate.refused = true
      this.#chosen = undefined
    }
    if (this.#chosen !== undefined) return
    const [candidate] = [...this.candidates.values()]
      .filter(({ refused, answeredMs }) => !refused && answeredMs >= attempt.startedMs)
      .sort((a, b) => PREFERENCE[a.kind] - PREFERENCE[b.kind] || (a.rttMs ?? 0) - (b.rttMs ?? 0))
    if (candidate === undefined) return
    this.#chosen = { candidate, setMs: undefined }
    this.#actions.push({ kind: 'endpoint', to: candidate.address })
  }

  /** Moves traffic to a better rung that has carried a small and a full-size echo both ways since it was set up. */
  #promote(nowMs: number): void {
    const relay = this.#health['relay-tcp']
    // With no path at all there is nothing to lose: the way back stands before the peer, who hears our reply, sends.
    if (this.rung === 'none' && Math.max(relay.lastReplyMs, relay.lastRequestMs) > -Infinity)
      this.#move('relay-tcp', 'the relay carries echoes', nowMs)
    if (this.rung === 'direct') return
    const direct = this.#health.direct
    const fromMs = this.#validatesFromMs(nowMs)
    if (fromMs === undefined || direct.lastReplyMs < fromMs || direct.lastFullReplyMs < fromMs) return
    this.#wasDirect = true
    this.#promotedMs = nowMs
    this.#move('direct', 'an echo and a full-size packet came back directly', nowMs)
  }

  /** Since when echoes on the direct rung count; undefined while there is nothing to validate. */
  #validatesFromMs(nowMs: number): number | undefined {
    if (nowMs < this.#holdDownUntilMs) return undefined
    if (this.controlling) return this.#chosen?.setMs
    const spokenTo = nowMs - this.#health.direct.lastRequestMs <= 2 * ECHO_INTERVAL_MS
    return spokenTo ? nowMs - FRESH_MS : undefined
  }

  #move(rung: Rung, why: string, nowMs: number): void {
    this.#actions.push({ kind: 'move', rung, why })
    this.rung = rung
    this.sinceMs = nowMs
    this.why = why
    this.#suspectSinceMs = undefined
  }

  #echo(rung: Rung, nowMs: number): void {
    const interval = this.#echoInterval(rung, nowMs)
    const health = this.#health[rung]
    if (interval === undefined || nowMs - health.lastSentMs < interval) return
    this.#sendEcho(rung, false, nowMs)
    if (rung !== this.rung) this.#sendEcho(rung, true, nowMs)
  }

  #sendEcho(rung: Rung, full: boolean, nowMs: number): void {
    const sequence = this.#sequence++ >>> 0
    this.#health[rung].sent(sequence, full, nowMs)
    this.#actions.push({ kind: 'echo', rung, sequence, full })
  }

  /** How often a rung is asked now; undefined: not at all. An idle, healthy path asks only the rung in use. */
  #echoInterval(rung: Rung, nowMs: number): number | undefined {
    if (rung === 'relay-udp') return undefined
    if (rung === this.rung || (this.#suspectSinceMs !== undefined && this.#usable(rung, nowMs))) {
      const inBurst = this.#suspectSinceMs !== undefined && nowMs - this.#suspectSinceMs < BURST_ECHOES * BURST_INTERVAL_MS
      return inBurst ? BURST_INTERVAL_MS : ECHO_INTERVAL_MS
    }
    if (rung === 'relay-tcp') return this.rung === 'none' && this.#usable(rung, nowMs) ? BRING_UP_INTERVAL_MS : undefined
    return this.#validatesFromMs(nowMs) === undefined ? undefined : BRING_UP_INTERVAL_MS
  }

  #usable(rung: Rung, nowMs: number): boolean {
    if (rung === 'direct') return this.#chosen?.setMs !== undefined || this.#wasDirect
    if (!this.#relayOpen || this.#readySinceMs === undefined) return false
    const spokenTo = this.#health[rung].lastRequestMs > -Infinity
    return this.controlling || spokenTo || nowMs - this.#readySinceMs > PATIENCE_MS
  }

  #next(nowMs: number): number {
    let next = nowMs + ECHO_INTERVAL_MS
    for (const rung of RUNGS) {
      const interval = this.#echoInterval(rung, nowMs)
      if (interval !== undefined) next = Math.min(next, this.#health[rung].lastSentMs + interval)
    }
    if (this.#attempt !== undefined) next = Math.min(next, this.#attempt.nextProbeMs)
    if (this.rung !== 'none' && this.#health[this.rung].lastSentMs > this.#health[this.rung].lastReplyMs)
      next = Math.min(next, this.#health[this.rung].lastSentMs + this.#health[this.rung].timeoutMs + 1)
    return Math.max(next, nowMs + 10)
  }
}

const RUNGS: readonly Rung[] = ['direct', 'relay-udp', 'relay-tcp']
const PREFERENCE = { host: 0, reflexive: 1, 'peer-reflexive': 2 }
