// The path to one peer, decided: which rung of the ladder carries traffic, when to echo and when to move. Pure: events
// come in as calls, `step` gives back what to do and `nextMs` when to step again; time and randomness are arguments.
//
//   relay-tcp  ── echo answered ──▶ carries traffic ◀── the rung in use is silent, this one answers ──┐
//   relay-udp  ── session bound ──▶ echoes, small and full-size ──▶ carries ───────────────────────────┤
//   direct ── address found (punch.ts) ──▶ echoes, small and full-size ──▶ carries ────────────────────┘
//
// Two rules keep WireGuard from stalling 5 s on lost or crossing handshakes. Nothing is sent to a peer before it said
// `ready` (its device knows our key). And only the controlling side, the one with the lower key, sends first on a rung;
// the other waits until an echo request came through it. Both then validate and move each for itself.

import type { SocketAddress } from '../lib/address.ts'
import { backoffMs } from '../lib/backoff.ts'
import type { Rung } from '../lib/status.ts'
import type { Candidate } from './announcement.ts'
import { Punch, type PunchAction } from './punch.ts'
import { RungHealth } from './rung-health.ts'

export type PathAction =
  | PunchAction
  | { readonly kind: 'echo'; readonly rung: Rung; readonly sequence: number; readonly full: boolean }
  | { readonly kind: 'move'; readonly rung: Rung; readonly why: string }

/** An echo per path in use. */
export const ECHO_INTERVAL_MS = 500
/** After a miss: this many more, this far apart, before the path counts as dead; 10 % loss does not flap then. */
const BURST_ECHOES = 5
const BURST_INTERVAL_MS = 50
const BURST_MS = BURST_ECHOES * BURST_INTERVAL_MS
const BRING_UP_INTERVAL_MS = 100
/** The side that is not controlling speaks first after all if it was not spoken to for so long. */
const PATIENCE_MS = 1_500
/** Where nothing carries traffic yet, the relay does so soonest: probes and handshakes do not compete with it at first. */
const RELAY_HEAD_START_MS = 300
/** What counts as "now" for echoes on a rung that the other side set up. */
const FRESH_MS = 1_500
/** A pair that has no direct path so long after it was ready may want the relay's UDP: most are direct by then. */
const UDP_RELAY_AFTER_MS = 1_500
/** A path that fails again so soon after it came up must wait longer before it carries traffic again. */
const FLAP_MS = 4_000
const HOLD_DOWN = { baseMs: 1_000, capMs: 30_000 }
/** A step that comes this much too late means that we did not run; silence in that time is forgiven. */
const STALL_MS = 100
const MIN_SLEEP_MS = 10

export class Path {
  readonly controlling: boolean
  readonly punch: Punch
  /** The rung that carries traffic. */
  rung: Rung | 'none'
  sinceMs: number
  /** What made the last move, for people. */
  why = ''

  readonly #health: Record<Rung, RungHealth> = {
    direct: new RungHealth(),
    'relay-udp': new RungHealth(),
    'relay-tcp': new RungHealth(),
  }
  #actions: PathAction[] = []
  #sequence = 0
  #readySinceMs: number | undefined
  #relayOpen = false
  #suspectSinceMs: number | undefined
  #wasDirect: boolean
  /** Since when WireGuard has the relay's UDP session for endpoint of fm-udp. */
  #udpBoundMs: number | undefined
  /** Of the rungs that traffic moves up to. */
  readonly #hold = { direct: new HoldDown(), 'relay-udp': new HoldDown() }
  #plannedMs = Infinity

  /** @param rung which the kernel's route points to now: after a restart of ours, what carries traffic is kept. */
  constructor(options: { controlling: boolean; rung: Rung | 'none'; nowMs: number }) {
    this.controlling = options.controlling
    this.punch = new Punch(options.controlling)
    this.rung = options.rung
    this.sinceMs = options.nowMs
    this.#wasDirect = options.rung === 'direct'
  }

  // === Events

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

  /** The peer started to probe. */
  called(nowMs: number): void {
    this.ready(nowMs)
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
    if (this.rung === 'direct' && this.#suspectMs(nowMs) < BURST_MS) this.punch.stop()
    else if (this.#maySearch(nowMs)) this.#actions.push(...this.punch.step(nowMs, random, this.#wasDirect))
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

  /** Whether a session over the relay's UDP would be of use: there is no direct path, and there has been time for one. */
  wantsUdpRelay(nowMs: number): boolean {
    if (this.rung === 'direct' || this.#readySinceMs === undefined) return false
    return nowMs - this.#readySinceMs > UDP_RELAY_AFTER_MS
  }

  /** The rung in use does not answer, and no other does either. */
  get silent(): boolean {
    return this.#suspectSinceMs !== undefined
  }

  /** How long nothing has come back on any rung; 0 while the rung in use answers. */
  silentMs(nowMs: number): number {
    return this.#suspectMs(nowMs)
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
    if (this.#suspectMs(nowMs) < BURST_MS + health.timeoutMs) return
    const other = RUNGS.find((rung) => rung !== this.rung && this.#health[rung].lastReplyMs >= this.#suspectSinceMs!)
    if (other === undefined) return
    if (this.rung !== 'relay-tcp') this.#hold[this.rung].fell(nowMs)
    if (this.rung === 'direct') this.punch.startOver(this.#hold.direct.untilMs)
    this.#move(other, `${this.rung} answered no echo for ${Math.round(nowMs - silentSince)} ms`, nowMs)
  }

  #suspectMs(nowMs: number): number {
    return this.#suspectSinceMs === undefined ? 0 : nowMs - this.#suspectSinceMs
  }

  /** Whether a direct path is to be looked for now. */
  #maySearch(nowMs: number): boolean {
    if (this.#readySinceMs === undefined || (this.rung === 'direct' && this.#suspectMs(nowMs) < BURST_MS)) return false
    return this.rung !== 'none' || !this.#relayOpen || nowMs - this.#readySinceMs >= RELAY_HEAD_START_MS
  }

  /** Moves traffic to a better rung that has carried a small and a full-size echo both ways since it was set up. */
  #promote(nowMs: number): void {
    const relay = this.#health['relay-tcp']
    // With no path at all there is nothing to lose: the way back stands before the peer, who hears our reply, sends.
    if (this.rung === 'none' && Math.max(relay.lastReplyMs, relay.lastRequestMs) > -Infinity)
      this.#move('relay-tcp', 'the relay carries echoes', nowMs)
    if (this.#isValid('direct', nowMs)) {
      this.#wasDirect = true
      this.#hold.direct.rose(nowMs)
      this.#move('direct', 'an echo and a full-size packet came back directly', nowMs)
    } else if (this.#isValid('relay-udp', nowMs)) {
      this.#hold['relay-udp'].rose(nowMs)
      this.#move('relay-udp', "an echo and a full-size packet came back over the relay's UDP", nowMs)
    }
  }

  #isValid(rung: 'direct' | 'relay-udp', nowMs: number): boolean {
    const fromMs = this.#validatesFromMs(rung, nowMs)
    const { lastReplyMs, lastFullReplyMs } = this.#health[rung]
    return fromMs !== undefined && Math.min(lastReplyMs, lastFullReplyMs) >= fromMs
  }

  /** Since when echoes on a rung count that is better than the one in use; undefined while there is nothing to validate. */
  #validatesFromMs(rung: 'direct' | 'relay-udp', nowMs: number): number | undefined {
    if (this.rung !== 'none' && RUNGS.indexOf(rung) >= RUNGS.indexOf(this.rung)) return undefined
    if (nowMs < this.#hold[rung].untilMs) return undefined
    const setMs = rung === 'direct' ? this.punch.chosen?.setMs : this.#udpBoundMs
    if (rung === 'relay-udp' && setMs === undefined) return undefined
    // What came back before the path was where it is says nothing of this rung now.
    if (this.controlling) return setMs && Math.max(setMs, this.sinceMs, this.#hold[rung].untilMs)
    const spokenTo = nowMs - this.#health[rung].lastRequestMs <= 2 * ECHO_INTERVAL_MS
    return spokenTo ? Math.max(nowMs - FRESH_MS, this.sinceMs) : undefined
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
    if (rung === this.rung || (this.silent && this.#usable(rung, nowMs)))
      return this.silent && this.#suspectMs(nowMs) < BURST_MS ? BURST_INTERVAL_MS : ECHO_INTERVAL_MS
    if (rung === 'relay-tcp')
      return this.rung === 'none' && this.#usable(rung, nowMs) ? BRING_UP_INTERVAL_MS : undefined
    return this.#validatesFromMs(rung, nowMs) === undefined ? undefined : BRING_UP_INTERVAL_MS
  }

  #usable(rung: Rung, nowMs: number): boolean {
    if (rung === 'direct') return this.punch.chosen?.setMs !== undefined || this.#wasDirect
    if (rung === 'relay-udp') return this.#udpBoundMs !== undefined
    if (!this.#relayOpen || this.#readySinceMs === undefined) return false
    const spokenTo = this.#health[rung].lastRequestMs > -Infinity
    return this.controlling || spokenTo || nowMs - this.#readySinceMs > PATIENCE_MS
  }

  #next(nowMs: number): number {
    const times = [nowMs + ECHO_INTERVAL_MS, this.punch.nextMs]
    for (const rung of RUNGS) {
      const interval = this.#echoInterval(rung, nowMs)
      if (interval !== undefined) times.push(this.#health[rung].lastSentMs + interval)
    }
    if (this.rung !== 'none') {
      const { lastSentMs, lastReplyMs, timeoutMs } = this.#health[this.rung]
      if (lastSentMs > lastReplyMs) times.push(lastSentMs + timeoutMs + 1)
    }
    return Math.max(Math.min(...times), nowMs + MIN_SLEEP_MS)
  }
}

/** Best first. */
const RUNGS: readonly Rung[] = ['direct', 'relay-udp', 'relay-tcp']

/** How long a rung that fell must wait before it carries traffic again: longer each time that it falls soon after. */
class HoldDown {
  untilMs = -Infinity
  #roseMs = -Infinity
  #falls = 0

  rose(nowMs: number): void {
    this.#roseMs = nowMs
  }

  fell(nowMs: number): void {
    this.#falls = nowMs - this.#roseMs < FLAP_MS ? this.#falls + 1 : 1
    this.untilMs = nowMs + backoffMs(HOLD_DOWN, this.#falls, 1)
  }
}
