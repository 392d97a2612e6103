// The search for an address at which a peer can be reached directly: attempts of a few seconds in which every candidate
// is probed, further and further apart while none works. Pure: `step` says what to do and `nextMs` when to step again.
//
//   openers ─▶ probes to all candidates ─▶ one answers ─▶ WireGuard gets it for endpoint ─▶ echoes decide (path.ts)

import { formatSocketAddress, type SocketAddress } from '../lib/address.ts'
import { backoffMs } from '../lib/backoff.ts'
import type { Candidate, CandidateKind } from './announcement.ts'

export type PunchAction =
  | { readonly kind: 'probe'; readonly to: SocketAddress; readonly ttl: number | undefined }
  /** Our openers have left; with `reply`, because the peer said so of its own. */
  | { readonly kind: 'call'; readonly reply: boolean }
  | { readonly kind: 'endpoint'; readonly to: SocketAddress }

export type TriedCandidate = {
  readonly kind: CandidateKind | 'peer-reflexive'
  readonly address: SocketAddress
  /** In this attempt, or in the last. */
  probes: number
  /** Since its last answer. */
  unanswered: number
  rttMs: number | undefined
  answeredMs: number
  /** When it was probed last, openers aside. */
  probedMs: number
  /** WireGuard did not get through although probes did: not chosen again in this attempt. */
  refused: boolean
}

const PROBE_INTERVAL_MS = 50
const PROBE_FAST_MS = 2_000
/** Later, and where NATs are known that hardly let a probe through. */
const PROBE_SLOW_INTERVAL_MS = 200
const ATTEMPT_MS = 5_000
/**
 * Openers die on the way: they open our own NAT without reaching the peer's. A NAT that a stranger's probe reaches first
 * may give our flow another port, and keeps to that while probes go on. So the first attempt sends none that could get
 * far; later ones look further, for a NAT of the provider's behind ours.
 */
const OPENER_TTLS = [2, 3, 4]
/** From the openers to the first probe, where the peer's openers have left before. */
const OPENER_LEAD_MS = 30
/** Where they have not: how long the peer's word is waited for. */
const CALL_WAIT_MS = 1_000
/** WireGuard repeats a lost handshake after 5 s; a candidate whose probes were answered gets that second chance. */
const VALIDATION_MS = 6_500
/** Linux' NATs forget an unanswered flow after 30 s: a retry that came sooner would meet what the last one left behind. */
const SILENCE_MS = 35_500
/** In addition. */
const RETRY = { baseMs: 2_000, capMs: 240_000 }
/** A pair that was direct before is tried again at least this often. */
const RETRY_KNOWN = { baseMs: 1_000, capMs: 8_000 }
const MAX_LEARNED_CANDIDATES = 16
/** Each got a probe when it was learned. A symmetric NAT shows another address for each of ours that it probes. */
const LEARNED_PER_PROBE = 4

type Attempt = {
  readonly startedMs: number
  /** Of the next probes, or of the openers. */
  nextProbeMs: number
  /** The peer's openers have left: no probe of ours is the first packet that its NAT sees. */
  peerOpen: boolean
  openersLeft: boolean
  readonly likely: boolean
}

export class Punch {
  readonly candidates = new Map<string, TriedCandidate>()
  /** When the next attempt begins, unless a new candidate or the peer begins one sooner. */
  nextAttemptMs = -Infinity
  /** The candidate being validated, and since when WireGuard has it for the peer's endpoint. */
  chosen: { readonly candidate: TriedCandidate; setMs: number | undefined } | undefined
  readonly #controlling: boolean
  readonly #isLikely: () => boolean
  #attempt: Attempt | undefined
  #attempts = 0
  /** When the last attempt ended without a path. */
  #failedMs = -Infinity
  #calledMs = -Infinity
  #owesReply = false
  #actions: PunchAction[] = []

  /**
   * @param controlling whether this side chooses the candidate; the other follows.
   * @param isLikely false while what is known of the NATs speaks against a direct path.
   */
  constructor(controlling: boolean, isLikely: () => boolean = () => true) {
    this.#controlling = controlling
    this.#isLikely = isLikely
  }

  get trying(): boolean {
    return this.#attempt !== undefined
  }

  /** The addresses that the peer announces; what was learned stays. News are tried at once. */
  setCandidates(candidates: readonly Candidate[], nowMs: number): void {
    const announced = new Set(candidates.map(({ address }) => formatSocketAddress(address)))
    for (const [text, { kind }] of this.candidates)
      if (kind !== 'peer-reflexive' && !announced.has(text)) this.candidates.delete(text)
    const news = candidates.filter(
      ({ kind, address }) => this.candidates.get(formatSocketAddress(address))?.kind !== kind,
    )
    for (const { kind, address } of news) this.#add(kind, address)
    if (news.length > 0) this.#soon(nowMs)
  }

  /** An authenticated probe came from this address: the peer is reachable there, whatever it announces. */
  learn(from: SocketAddress): TriedCandidate {
    const known = this.candidates.get(formatSocketAddress(from))
    if (known !== undefined) return known
    const learned = [...this.candidates].filter(([, { kind }]) => kind === 'peer-reflexive')
    if (learned.length >= MAX_LEARNED_CANDIDATES) this.candidates.delete(learned[0]![0])
    return this.#add('peer-reflexive', from)
  }

  answered(from: SocketAddress, rttMs: number, nowMs: number): void {
    const candidate = this.candidates.get(formatSocketAddress(from))
    if (candidate === undefined) return
    candidate.rttMs = rttMs
    candidate.answeredMs = nowMs
    candidate.unanswered = 0
  }

  endpointSet(to: SocketAddress, nowMs: number): void {
    if (this.chosen?.candidate.address === to) this.chosen.setMs = nowMs
  }

  /** The peer's openers have left. @param reply whether it answers our call, and wants no answer. */
  called(reply: boolean, nowMs: number): void {
    if (reply && this.#attempt === undefined) return
    this.#calledMs = nowMs
    this.#owesReply ||= !reply
    this.#peerIsOpen(nowMs)
  }

  /**
   * The peer's probe arrived: a probe of ours goes back at once, through the hole that it came through. From an address that
   * was in vain a moment ago it begins no attempt, and no more of ours go back than would leave by themselves: probes that
   * are late would beget probes without end.
   */
  probed(candidate: TriedCandidate, nowMs: number): void {
    const wasInVain = candidate.probes > 0 && nowMs - this.#failedMs < ATTEMPT_MS
    if (this.#attempt === undefined && wasInVain) return
    this.#peerIsOpen(nowMs)
    const isDue = nowMs - candidate.probedMs >= PROBE_INTERVAL_MS
    if (isDue && candidate.answeredMs < this.#attempt!.startedMs) this.#probe(candidate, undefined, nowMs)
  }

  /** Found: nothing is tried any more. */
  stop(): void {
    this.#attempt = undefined
    this.chosen = undefined
  }

  /** What was found failed: begin anew at that time, as if for the first time. */
  startOver(atMs: number): void {
    this.stop()
    this.nextAttemptMs = atMs
    this.#attempts = 0
    this.#failedMs = -Infinity
  }

  /**
   * @param known the pair was direct before. @param callable a call would reach the peer, if it is there.
   */
  step(
    nowMs: number,
    random: number,
    { known, callable }: { readonly known: boolean; readonly callable: boolean },
  ): readonly PunchAction[] {
    if (this.#attempt === undefined && this.candidates.size > 0 && nowMs >= this.nextAttemptMs)
      this.#begin(nowMs, !callable)
    const attempt = this.#attempt
    if (attempt !== undefined) {
      if (nowMs - attempt.startedMs > ATTEMPT_MS && this.chosen === undefined) {
        this.#attempt = undefined
        this.#failedMs = nowMs
        const more = backoffMs(known ? RETRY_KNOWN : RETRY, this.#attempts, random)
        this.nextAttemptMs = nowMs + (known ? more : SILENCE_MS + more)
      } else {
        if (nowMs >= attempt.nextProbeMs) this.#probeAll(attempt, nowMs)
        if (this.#owesReply) this.#actions.push({ kind: 'call', reply: true })
        this.#owesReply = false
        if (this.#controlling) this.#choose(attempt, nowMs)
      }
    }
    const actions = this.#actions
    this.#actions = []
    return actions
  }

  get nextMs(): number {
    return this.#attempt?.nextProbeMs ?? Infinity
  }

  #add(kind: TriedCandidate['kind'], address: SocketAddress): TriedCandidate {
    const candidate = {
      kind,
      address,
      probes: 0,
      unanswered: 0,
      rttMs: undefined,
      answeredMs: -Infinity,
      probedMs: -Infinity,
      refused: false,
    }
    this.candidates.set(formatSocketAddress(address), candidate)
    return candidate
  }

  #soon(nowMs: number): void {
    this.nextAttemptMs = Math.min(this.nextAttemptMs, nowMs)
    this.#attempts = Math.min(this.#attempts, 1)
  }

  #peerIsOpen(nowMs: number): void {
    if (this.#attempt === undefined) return this.#begin(nowMs, true)
    const { peerOpen, openersLeft } = this.#attempt
    if (!peerOpen && !openersLeft) this.#attempt.nextProbeMs = nowMs
    this.#attempt.peerOpen = true
  }

  #begin(nowMs: number, peerOpen: boolean): void {
    this.#attempt = { startedMs: nowMs, nextProbeMs: nowMs, openersLeft: true, peerOpen, likely: this.#isLikely() }
    this.#attempts++
    for (const candidate of this.candidates.values()) {
      candidate.probes = 0
      candidate.refused = false
    }
  }

  #probeAll(attempt: Attempt, nowMs: number): void {
    if (attempt.openersLeft) {
      attempt.openersLeft = false
      for (const ttl of OPENER_TTLS.slice(0, this.#attempts))
        for (const candidate of this.candidates.values()) this.#probe(candidate, ttl, nowMs)
      if (nowMs - this.#calledMs > ATTEMPT_MS) this.#actions.push({ kind: 'call', reply: false })
      attempt.nextProbeMs = nowMs + (attempt.peerOpen ? OPENER_LEAD_MS : CALL_WAIT_MS)
      return
    }
    for (const candidate of this.#nextToProbe()) this.#probe(candidate, undefined, nowMs)
    const fast = attempt.likely && nowMs - attempt.startedMs < PROBE_FAST_MS && this.chosen === undefined
    attempt.nextProbeMs = nowMs + (fast ? PROBE_INTERVAL_MS : PROBE_SLOW_INTERVAL_MS)
  }

  /** All that the peer announces, and some of the learned in turn, those with the fewest probes first. */
  #nextToProbe(): readonly TriedCandidate[] {
    const all = [...this.candidates.values()]
    const learned = all.filter(({ kind }) => kind === 'peer-reflexive').sort((a, b) => a.probes - b.probes)
    return [...all.filter(({ kind }) => kind !== 'peer-reflexive'), ...learned.slice(0, LEARNED_PER_PROBE)]
  }

  #probe(candidate: TriedCandidate, ttl: number | undefined, nowMs: number): void {
    candidate.probes++
    candidate.unanswered++
    // An opener dies on the way, and keeps nothing from being sent.
    if (ttl === undefined) candidate.probedMs = nowMs
    this.#actions.push({ kind: 'probe', to: candidate.address, ttl })
  }

  #choose(attempt: Attempt, nowMs: number): void {
    const setMs = this.chosen?.setMs
    if (setMs !== undefined && nowMs - setMs > VALIDATION_MS) {
      this.chosen!.candidate.refused = true
      this.chosen = undefined
    }
    if (this.chosen !== undefined) return
    const [candidate] = [...this.candidates.values()]
      .filter(({ refused, answeredMs }) => !refused && answeredMs >= attempt.startedMs)
      .sort((a, b) => PREFERENCE[a.kind] - PREFERENCE[b.kind] || (a.rttMs ?? 0) - (b.rttMs ?? 0))
    if (candidate === undefined) return
    this.chosen = { candidate, setMs: undefined }
    this.#actions.push({ kind: 'endpoint', to: candidate.address })
  }
}

const PREFERENCE = { host: 0, static: 1, mapped: 2, reflexive: 3, 'peer-reflexive': 4 }
