// The path to one peer, decided: which rung of the ladder carries traffic, when to echo and when to move. Pure: events
// come in as calls, `step` gives back what to do and `nextMs` when to step again; time and randomness are arguments.
//
//   cold ── traffic, or the peer's interest ──▶ none ── echo answered over relay-tcp ──▶ relay-tcp
//   relay-udp ── session bound ──▶ echoes, small and full-size ──▶ carries
//   direct ── address found (punch.ts) ──▶ echoes, small and full-size ──▶ carries
//   the rung in use is silent, another answers ──▶ that one carries          nobody has interest any more ──▶ cold
//
// Two rules keep WireGuard from stalling 5 s on lost or crossing handshakes. Nothing is sent to a peer before it said
// `ready` (its device knows our key). And on a rung whose packets we do not see (direct, relay-udp) only the controlling
// side, the one with the lower key, sends first; the other waits until an echo request came through it. Both then
// validate and move each for itself. What a pair without a path sends goes to fm-tcp (packet-client.ts).

import type { SocketAddress } from '../lib/address.ts'
import { LEAST_MTU } from '../lib/owned.ts'
import { RUNGS, type Rung } from '../lib/status.ts'
import type { Candidate } from './announcement.ts'
import { ECHO_INTERVAL_MS, EchoSchedule, type DueEcho, type EchoNeeds } from './echo-schedule.ts'
import { HoldDown } from './hold-down.ts'
import { Interest, type InterestOptions } from './interest.ts'
import { Punch, type PunchAction } from './punch.ts'
import { Suspicion } from './suspicion.ts'

export type PathAction =
  | PunchAction
  | (DueEcho & { readonly kind: 'echo'; readonly interested: boolean })
  /** Ask the peer whether its devices know our key. */
  | { readonly kind: 'ask' }
  /** Nothing comes back: what carries the packets may be dead, or at another address, without knowing. */
  | { readonly kind: 'suspect' }
  /** @param mtu of the path, where it is less than the devices'. */
  | { readonly kind: 'move'; readonly rung: Rung | 'cold'; readonly mtu?: number | undefined; readonly why: string }

export type Move = { readonly atMs: number; readonly rung: Rung | 'cold'; readonly why: string }

/** Where nothing carries traffic yet, the relay does so soonest: probes and handshakes do not compete with it at first. */
const RELAY_HEAD_START_MS = 300
/** What counts as "now" for echoes on a rung that the other side set up. */
const FRESH_MS = 1_500
/** A pair that has no direct path so long after it began may want the relay's UDP: most are direct by then. */
const UDP_RELAY_AFTER_MS = 1_500
/** What calls and relayed echoes take, before any was measured; and what is believed at most. */
const DEFAULT_RELAY_RTT_MS = 200
const MAX_RELAY_RTT_MS = 2_000
const ASK_INTERVAL_MS = 1_000
/** A step that comes this much too late means that we did not run; silence in that time is forgiven. */
const STALL_MS = 100
const MIN_SLEEP_MS = 10
const MAX_HISTORY = 8

export class Path {
  readonly controlling: boolean
  readonly punch: Punch
  /** The rung that carries traffic. */
  rung: Rung | 'none' | 'cold'
  sinceMs: number
  /** Where packets must be smaller than the devices' MTU, bytes. */
  mtu: number | undefined
  /** What made the last move, for people. */
  why = ''
  /** The last moves, newest first. */
  readonly history: Move[] = []

  readonly #interest: Interest
  readonly #echoes = new EchoSchedule()
  #actions: PathAction[] = []
  #readySinceMs: number | undefined
  #askedMs = -Infinity
  /** When the pair was last woken. */
  #wokeMs: number
  #relayOpen = false
  readonly #suspicion = new Suspicion()
  #wasDirect: boolean
  /** Since when WireGuard has the relay's UDP session for endpoint of fm-udp. */
  #udpBoundMs: number | undefined
  /** Of the rungs that traffic moves up to. */
  readonly #hold = { direct: new HoldDown(), 'relay-udp': new HoldDown() }
  #plannedMs = -Infinity

  /** @param rung which the kernel's route points to now: after a restart of ours, what carries traffic is kept. */
  constructor(
    options: InterestOptions & { readonly controlling: boolean; readonly rung: Rung | 'cold'; readonly nowMs: number },
  ) {
    const { controlling, rung, nowMs } = options
    this.controlling = controlling
    this.punch = new Punch(controlling)
    this.rung = rung
    this.sinceMs = nowMs
    this.#wokeMs = nowMs
    this.#wasDirect = rung === 'direct'
    this.#interest = new Interest(options)
    if (rung !== 'cold') this.#interest.traffic(nowMs)
  }

  // === Events

  /** Packets of others than ours went to the peer or came from it. */
  traffic(nowMs: number): void {
    this.#interest.traffic(nowMs)
    this.#plannedMs = Math.min(this.#plannedMs, nowMs)
  }

  setCandidates(candidates: readonly Candidate[], nowMs: number): void {
    this.punch.setCandidates(candidates, nowMs)
  }

  /** The peer's devices know our key: packets to it will not be wasted. */
  ready(nowMs: number): void {
    this.#readySinceMs ??= nowMs
  }

  setRelayOpen(open: boolean): void {
    this.#relayOpen = open
  }

  /** The peer started to probe, since it has traffic for us. */
  called(nowMs: number): void {
    this.ready(nowMs)
    this.#peerInterest(nowMs)
    if (this.#maySearch(nowMs)) this.punch.called(nowMs)
  }

  /** An authenticated probe came from this address. */
  probed(from: SocketAddress, nowMs: number): void {
    this.ready(nowMs)
    const candidate = this.punch.learn(from)
    if (this.#maySearch(nowMs)) this.punch.probed(candidate, nowMs)
  }

  probeAnswered(from: SocketAddress, rttMs: number, nowMs: number): void {
    this.punch.answered(from, rttMs, nowMs)
  }

  /**
   * WireGuard has the endpoint that an action asked for. Nothing goes through the device before: a handshake without
   * an endpoint is lost, and the next one 5 s away.
   */
  endpointSet(to: SocketAddress, nowMs: number): void {
    this.punch.endpointSet(to, nowMs)
  }

  /** @param bound whether packets to the peer pass over the relay's UDP, and WireGuard has its endpoint. */
  setUdpBound(bound: boolean, nowMs: number): void {
    this.#udpBoundMs = bound ? nowMs : undefined
  }

  /** @param interested whether the peer has traffic for us. */
  echoRequested(rung: Rung, interested: boolean, nowMs: number): void {
    this.ready(nowMs)
    if (interested) this.#peerInterest(nowMs)
    this.#echoes.health[rung].lastRequestMs = nowMs
  }

  echoReplied(rung: Rung, sequence: number, nowMs: number): void {
    this.ready(nowMs)
    this.#echoes.health[rung].replied(sequence, nowMs)
  }

  // === Decisions

  step(nowMs: number, random: number): readonly PathAction[] {
    this.#forgiveStall(nowMs)
    if (this.#interest.any(nowMs)) this.#wake(nowMs)
    // Without the relay nothing could wake the pair again.
    else if (this.#relayOpen) this.#sleep(nowMs)
    if (this.rung === 'cold') this.#plannedMs = Infinity
    else {
      this.#ask(nowMs)
      this.#watch(nowMs)
      this.#search(nowMs, random)
      this.#promote(nowMs)
      this.#echo(nowMs)
    }
    const actions = this.#actions
    this.#actions = []
    return actions
  }

  /** When to step again if no event comes before. */
  get nextMs(): number {
    return this.#plannedMs
  }

  get isReady(): boolean {
    return this.#readySinceMs !== undefined
  }

  get rttMs(): number | undefined {
    return isRung(this.rung) ? this.#echoes.health[this.rung].rttMs : undefined
  }

  /** Of the rung in use; see RungHealth. */
  get loss(): number | undefined {
    return isRung(this.rung) ? this.#echoes.health[this.rung].loss : undefined
  }

  /** Whether a session over the relay's UDP would be of use: there is no direct path, and there has been time for one. */
  wantsUdpRelay(nowMs: number): boolean {
    if (this.rung === 'cold' || this.rung === 'direct' || this.#readySinceMs === undefined) return false
    return nowMs - this.#begunMs(this.#readySinceMs) > UDP_RELAY_AFTER_MS
  }

  /** How long nothing has come back on any rung; 0 while the rung in use answers. */
  silentMs(nowMs: number): number {
    return this.#suspicion.ageMs(nowMs)
  }

  #peerInterest(nowMs: number): void {
    this.#interest.peer(nowMs)
    this.#plannedMs = Math.min(this.#plannedMs, nowMs)
  }

  /** Both could begin: the pair is awake and the peer ready. */
  #begunMs(readySinceMs: number): number {
    return Math.max(readySinceMs, this.#wokeMs)
  }

  #wake(nowMs: number): void {
    if (this.rung !== 'cold') return
    this.rung = 'none'
    this.sinceMs = nowMs
    this.#wokeMs = nowMs
    this.#echoes.startOver()
    this.punch.startOver(nowMs)
  }

  #sleep(nowMs: number): void {
    if (this.rung === 'cold') return
    this.punch.startOver(Infinity)
    this.#udpBoundMs = undefined
    this.#move('cold', undefined, 'no traffic', nowMs)
  }

  #ask(nowMs: number): void {
    if (this.#readySinceMs !== undefined || !this.#relayOpen || nowMs - this.#askedMs < ASK_INTERVAL_MS) return
    this.#askedMs = nowMs
    this.#actions.push({ kind: 'ask' })
  }

  #forgiveStall(nowMs: number): void {
    const late = nowMs - this.#plannedMs
    if (late < STALL_MS || !Number.isFinite(late)) return
    for (const rung of RUNGS) this.#echoes.health[rung].forgive(late)
    this.#suspicion.forgive(late)
  }

  /** Leaves a rung that fell silent, but only for one that answers: if the peer's gateway process is down, none does. */
  #watch(nowMs: number): void {
    if (!isRung(this.rung)) return
    const health = this.#echoes.health[this.rung]
    const large = this.#largeSize()
    const missed = this.#suspicion.look(health, large, nowMs)
    if (this.#suspicion.isToBeTold(nowMs)) this.#actions.push({ kind: 'suspect' })
    const { sinceMs, silentSinceMs } = this.#suspicion
    if (sinceMs === undefined || !this.#suspicion.isCertain(health, nowMs)) return
    if (missed === 'large' && large === 'full' && health.lastReplyMs('least') >= sinceMs)
      return this.#move(this.rung, LEAST_MTU, 'full-size packets no longer pass', nowMs)
    const other = RUNGS.find((rung) => rung !== this.rung && this.#answersSince(rung, sinceMs))
    if (other === undefined) return
    if (this.rung !== 'relay-tcp') this.#hold[this.rung].fell(nowMs)
    if (this.rung === 'direct') this.punch.startOver(this.#hold.direct.untilMs)
    const what = missed === 'large' ? 'packet of the MTU' : 'echo'
    this.#move(other, undefined, `${this.rung} answered no ${what} for ${Math.round(nowMs - silentSinceMs)} ms`, nowMs)
  }

  #answersSince(rung: Rung, sinceMs: number): boolean {
    const health = this.#echoes.health[rung]
    return health.lastReplyMs('small') >= sinceMs && (rung === 'relay-tcp' || health.lastReplyMs('full') >= sinceMs)
  }

  #search(nowMs: number, random: number): void {
    if (this.rung === 'direct' && !this.#suspicion.isPastBurst(nowMs)) return this.punch.stop()
    if (!this.#maySearch(nowMs)) return
    const own = this.#interest.isOwn(nowMs)
    const roundTripMs = this.#echoes.health['relay-tcp'].rttMs ?? DEFAULT_RELAY_RTT_MS
    for (const action of this.punch.step(nowMs, random, this.#wasDirect, Math.min(roundTripMs, MAX_RELAY_RTT_MS) / 2))
      if (action.kind !== 'call' || own) this.#actions.push(action)
  }

  /** Whether a direct path is to be looked for now. */
  #maySearch(nowMs: number): boolean {
    if (this.#readySinceMs === undefined || this.rung === 'cold') return false
    if (this.rung === 'direct' && !this.#suspicion.isPastBurst(nowMs)) return false
    const begunMs = this.#begunMs(this.#readySinceMs)
    return this.rung !== 'none' || !this.#relayOpen || nowMs - begunMs >= RELAY_HEAD_START_MS
  }

  /** Moves traffic to a better rung that has carried a small and a full-size echo both ways since it was set up. */
  #promote(nowMs: number): void {
    const relay = this.#echoes.health['relay-tcp']
    // With no path at all there is nothing to lose: the way back stands before the peer, who hears our reply, sends.
    if (this.rung === 'none' && Math.max(relay.lastReplyMs('small'), relay.lastRequestMs) >= this.#wokeMs)
      this.#move('relay-tcp', undefined, 'the relay carries echoes', nowMs)
    for (const rung of ['direct', 'relay-udp'] as const) {
      const fromMs = this.#validatesFromMs(rung, nowMs)
      const size = fromMs === undefined ? undefined : this.#echoes.health[rung].provenSize(fromMs, nowMs)
      if (size === undefined) continue
      if (rung === 'direct') this.#wasDirect = true
      this.#hold[rung].rose(nowMs)
      const way = rung === 'direct' ? 'directly' : "over the relay's UDP"
      const what = size === 'full' ? 'a full-size packet' : `a packet of ${LEAST_MTU} bytes, and no larger one,`
      return this.#move(rung, size === 'full' ? undefined : LEAST_MTU, `an echo and ${what} came back ${way}`, nowMs)
    }
    if (
      isRung(this.rung) &&
      this.mtu !== undefined &&
      this.#echoes.health[this.rung].lastReplyMs('full') > this.sinceMs
    )
      this.#move(this.rung, undefined, 'full-size packets pass again', nowMs)
  }

  /** Since when echoes on a rung count that is better than the one in use; undefined while there is nothing to validate. */
  #validatesFromMs(rung: 'direct' | 'relay-udp', nowMs: number): number | undefined {
    if (isRung(this.rung) && RUNGS.indexOf(rung) >= RUNGS.indexOf(this.rung)) return undefined
    if (nowMs < this.#hold[rung].untilMs) return undefined
    const setMs = rung === 'direct' ? this.punch.chosen?.setMs : this.#udpBoundMs
    if (rung === 'relay-udp' && setMs === undefined) return undefined
    // What came back before the path was where it is says nothing of this rung now.
    if (this.controlling) return setMs && Math.max(setMs, this.sinceMs, this.#hold[rung].untilMs)
    const spokenTo = nowMs - this.#echoes.health[rung].lastRequestMs <= 2 * ECHO_INTERVAL_MS
    return spokenTo ? Math.max(nowMs - FRESH_MS, this.sinceMs) : undefined
  }

  #move(rung: Rung | 'cold', mtu: number | undefined, why: string, nowMs: number): void {
    this.#actions.push({ kind: 'move', rung, mtu, why })
    this.rung = rung
    this.mtu = mtu
    this.sinceMs = nowMs
    this.why = why
    this.#suspicion.clear()
    this.history.unshift({ atMs: nowMs, rung, why })
    this.history.length = Math.min(this.history.length, MAX_HISTORY)
  }

  /** The size, beside small ones, that the rung in use must carry; TCP carries any. */
  #largeSize(): 'least' | 'full' | undefined {
    return this.rung === 'relay-tcp' ? undefined : this.mtu === undefined ? 'full' : 'least'
  }

  #echo(nowMs: number): void {
    const needs: EchoNeeds = {
      inUse: isRung(this.rung) ? this.rung : 'none',
      large: this.#largeSize(),
      validated: RUNGS.filter((rung) => this.#isValidated(rung, nowMs)),
      usable: RUNGS.filter((rung) => this.#isUsable(rung)),
      suspicion: this.#suspicion,
    }
    const interested = this.#interest.isOwn(nowMs)
    for (const echo of this.#echoes.due(needs, nowMs)) this.#actions.push({ kind: 'echo', ...echo, interested })
    const nextMs = Math.min(this.#echoes.nextMs(needs, nowMs), this.punch.nextMs, this.#suspicion.nextMs)
    this.#plannedMs = Math.max(nextMs, nowMs + MIN_SLEEP_MS)
  }

  #isValidated(rung: Rung, nowMs: number): boolean {
    if (rung === 'relay-tcp') return this.rung === 'none' && this.#isUsable(rung)
    return this.#validatesFromMs(rung, nowMs) !== undefined
  }

  #isUsable(rung: Rung): boolean {
    if (rung === 'direct') return this.punch.chosen?.setMs !== undefined || this.#wasDirect
    if (rung === 'relay-udp') return this.#udpBoundMs !== undefined
    return this.#relayOpen && this.#readySinceMs !== undefined
  }
}

export const isRung = (rung: Rung | 'none' | 'cold'): rung is Rung => rung !== 'none' && rung !== 'cold'
