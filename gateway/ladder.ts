// Which rung of the ladder carries a peer's traffic, decided from echoes. Pure; the path (path.ts) says when to look.
//
//   none ── echo answered over relay-tcp ──▶ relay-tcp
//   relay-udp ── session bound ──▶ echoes, small and full-size ──▶ carries
//   direct ── address found (punch.ts) ──▶ echoes, small and full-size ──▶ carries
//   the rung in use is silent, another answers ──▶ that one carries
//
// On a rung whose packets we do not see (direct, relay-udp) only the controlling side, the one with the lower key, sends
// first; the other waits until an echo request came through it. Both then validate and move each for itself.

import { LEAST_MTU } from '../lib/owned.ts'
import { RUNGS, type Rung } from '../lib/status.ts'
import { ECHO_INTERVAL_MS, EchoSchedule, type DueEcho, type EchoNeeds } from './echo-schedule.ts'
import { HoldDown } from './hold-down.ts'
import type { Punch } from './punch.ts'
import { Suspicion } from './suspicion.ts'

export type LadderAction =
  | (DueEcho & { readonly kind: 'echo'; readonly interested: boolean })
  /** Nothing comes back: what carries the packets may be dead, or at another address, without knowing. */
  | { readonly kind: 'suspect' }
  /** @param mtu of the path, where it is less than the devices'. */
  | { readonly kind: 'move'; readonly rung: Rung | 'cold'; readonly mtu?: number | undefined; readonly why: string }

type Move = { readonly atMs: number; readonly rung: Rung | 'cold'; readonly why: string }

/** What counts as "now" for echoes on a rung that the other side set up. */
const FRESH_MS = 1_500
const MAX_HISTORY = 8
/**
 * What kept us from running (all gateways plan anew at the same moment, say) may have kept the peer, then, for as long. Until
 * the rung in use answers again that counts for so much in all, so that a dead one is left on a busy machine too.
 */
const PEER_KEPT_MS = 2_000

export class Ladder {
  /** The rung that carries traffic. */
  rung: Rung | 'none' | 'cold'
  sinceMs: number
  /** Where packets must be smaller than the devices' MTU, bytes. */
  mtu: number | undefined
  /** What made the last move, for people. */
  why = ''
  /** What carried traffic before that. */
  cameFrom: Rung | 'none' | 'cold' = 'none'
  /** The last moves, newest first. */
  readonly history: Move[] = []
  /** At any time so far. */
  wasDirect: boolean

  readonly #controlling: boolean
  readonly #punch: Punch
  readonly #act: (action: LadderAction) => void
  readonly #echoes: EchoSchedule
  readonly #suspicion = new Suspicion()
  /** Of the rungs that traffic moves up to. */
  readonly #hold = { direct: new HoldDown(), 'relay-udp': new HoldDown() }
  /** Since when WireGuard has the relay's UDP session for endpoint of fm-udp. */
  #udpBoundMs: number | undefined
  #wokeMs: number
  /** What is left of PEER_KEPT_MS. */
  #peerKeptMs = PEER_KEPT_MS

  /** @param punch finds the address of the rung direct. @param act takes what is to be done. */
  constructor(
    options: {
      readonly controlling: boolean
      readonly rung: Rung | 'cold'
      readonly punch: Punch
      readonly nowMs: number
    },
    act: (action: LadderAction) => void,
  ) {
    this.#controlling = options.controlling
    this.#echoes = new EchoSchedule(options.controlling)
    this.#punch = options.punch
    this.#act = act
    this.rung = options.rung
    this.sinceMs = options.nowMs
    this.#wokeMs = options.nowMs
    this.wasDirect = options.rung === 'direct'
  }

  // === Events

  /** @param bound whether packets to the peer pass over the relay's UDP, and WireGuard has its endpoint. */
  setUdpBound(bound: boolean, nowMs: number): void {
    this.#udpBoundMs = bound ? nowMs : undefined
  }

  echoRequested(rung: Rung, nowMs: number): void {
    this.#echoes.health[rung].lastRequestMs = nowMs
  }

  echoReplied(rung: Rung, sequence: number, nowMs: number): void {
    this.#echoes.health[rung].replied(sequence, nowMs)
    if (rung === this.rung) this.#peerKeptMs = PEER_KEPT_MS
  }

  /** From cold. */
  wake(nowMs: number): void {
    this.rung = 'none'
    this.sinceMs = nowMs
    this.#wokeMs = nowMs
    this.#echoes.startOver()
  }

  sleep(why: string, nowMs: number): void {
    this.#udpBoundMs = undefined
    this.#move('cold', undefined, why, nowMs)
  }

  /** Time in which we ourselves did not run. */
  forgive(ms: number): void {
    const peerMs = this.#suspicion.sinceMs === undefined ? Math.min(ms, this.#peerKeptMs) : 0
    this.#peerKeptMs -= peerMs
    for (const rung of RUNGS) this.#echoes.health[rung].forgive(ms + peerMs)
    this.#suspicion.forgive(ms)
  }

  // === What is known

  /** Of the rung in use. */
  get rttMs(): number | undefined {
    return isRung(this.rung) ? this.rttMsOf(this.rung) : undefined
  }

  /** Of the rung in use; see RungHealth. */
  get loss(): number | undefined {
    return isRung(this.rung) ? this.#echoes.health[this.rung].loss : undefined
  }

  rttMsOf(rung: Rung): number | undefined {
    return this.#echoes.health[rung].rttMs
  }

  /** How long nothing has come back on any rung; 0 while the rung in use answers. */
  silentMs(nowMs: number): number {
    return this.#suspicion.ageMs(nowMs)
  }

  /** Whether the rung in use left a whole burst of echoes unanswered, as far as one can tell yet. */
  isLost(nowMs: number): boolean {
    return this.#suspicion.isPastBurst(nowMs)
  }

  // === Decisions, in the order in which they are made

  /** Leaves a rung that fell silent, but only for one that answers: if the peer's gateway process is down, none does. */
  watch(nowMs: number): void {
    if (!isRung(this.rung)) return
    const health = this.#echoes.health[this.rung]
    const large = this.#largeSize()
    const missed = this.#suspicion.look(health, large, nowMs)
    if (this.#suspicion.isToBeTold(nowMs)) this.#act({ kind: 'suspect' })
    const { sinceMs, silentSinceMs } = this.#suspicion
    if (sinceMs === undefined || !this.#suspicion.isCertain(health, nowMs)) return
    if (missed === 'large' && large === 'full' && health.lastReplyMs('least') >= sinceMs)
      return this.#move(this.rung, LEAST_MTU, 'full-size packets no longer pass', nowMs)
    const other = RUNGS.find((rung) => rung !== this.rung && this.#answersSince(rung, sinceMs))
    if (other === undefined) return
    if (this.rung !== 'relay-tcp') this.#hold[this.rung].fell(nowMs)
    if (this.rung === 'direct') this.#punch.startOver(this.#hold.direct.untilMs)
    const what = missed === 'large' ? 'packet of the MTU' : 'echo'
    this.#move(other, undefined, `${this.rung} answered no ${what} for ${Math.round(nowMs - silentSinceMs)} ms`, nowMs)
  }

  /** Moves traffic to a better rung that has carried a small and a full-size echo both ways since it was set up. */
  promote(nowMs: number): void {
    const relay = this.#echoes.health['relay-tcp']
    // With no path at all there is nothing to lose: the way back stands before the peer, who hears our reply, sends.
    if (this.rung === 'none' && Math.max(relay.lastReplyMs('small'), relay.lastRequestMs) >= this.#wokeMs)
      this.#move('relay-tcp', undefined, 'the relay carries echoes', nowMs)
    for (const rung of ['direct', 'relay-udp'] as const) {
      const fromMs = this.#validatesFromMs(rung, nowMs)
      const size = fromMs === undefined ? undefined : this.#echoes.health[rung].provenSize(fromMs, nowMs)
      if (size === undefined) continue
      if (rung === 'direct') this.wasDirect = true
      this.#hold[rung].rose(nowMs)
      const way = rung === 'direct' ? 'directly' : "over the relay's UDP"
      const what = size === 'full' ? 'a full-size packet' : `a packet of ${LEAST_MTU} bytes, and no larger one,`
      return this.#move(rung, size === 'full' ? undefined : LEAST_MTU, `an echo and ${what} came back ${way}`, nowMs)
    }
    if (!isRung(this.rung) || this.mtu === undefined) return
    if (this.#echoes.health[this.rung].lastReplyMs('full') > this.sinceMs)
      this.#move(this.rung, undefined, 'full-size packets pass again', nowMs)
  }

  /**
   * Sends the echoes that are due. @param relayUsable whether packets may pass on relay-tcp. @param interested whether we
   * have traffic for the peer. @returns when to look again.
   */
  echo(relayUsable: boolean, interested: boolean, nowMs: number): number {
    const isUsable: Readonly<Record<Rung, boolean>> = {
      direct: this.#punch.chosen?.setMs !== undefined || this.wasDirect,
      'relay-udp': this.#udpBoundMs !== undefined,
      'relay-tcp': relayUsable,
    }
    const needs: EchoNeeds = {
      inUse: isRung(this.rung) ? this.rung : 'none',
      large: this.#largeSize(),
      validated: RUNGS.filter((rung) =>
        rung === 'relay-tcp' ? relayUsable && this.rung === 'none' : this.#validatesFromMs(rung, nowMs) !== undefined,
      ),
      usable: RUNGS.filter((rung) => isUsable[rung]),
      suspicion: this.#suspicion,
    }
    for (const echo of this.#echoes.due(needs, nowMs)) this.#act({ kind: 'echo', ...echo, interested })
    return Math.min(this.#echoes.nextMs(needs, nowMs), this.#suspicion.nextMs)
  }

  #answersSince(rung: Rung, sinceMs: number): boolean {
    const health = this.#echoes.health[rung]
    return health.lastReplyMs('small') >= sinceMs && (rung === 'relay-tcp' || health.lastReplyMs('full') >= sinceMs)
  }

  /** Since when echoes on a rung count that is better than the one in use; undefined while there is nothing to validate. */
  #validatesFromMs(rung: 'direct' | 'relay-udp', nowMs: number): number | undefined {
    if (isRung(this.rung) && RUNGS.indexOf(rung) >= RUNGS.indexOf(this.rung)) return undefined
    if (nowMs < this.#hold[rung].untilMs) return undefined
    const setMs = rung === 'direct' ? this.#punch.chosen?.setMs : this.#udpBoundMs
    if (rung === 'relay-udp' && setMs === undefined) return undefined
    // What came back before the path was where it is says nothing of this rung now.
    if (this.#controlling) return setMs && Math.max(setMs, this.sinceMs, this.#hold[rung].untilMs)
    const spokenTo = nowMs - this.#echoes.health[rung].lastRequestMs <= 2 * ECHO_INTERVAL_MS
    return spokenTo ? Math.max(nowMs - FRESH_MS, this.sinceMs) : undefined
  }

  /** The size, beside small ones, that the rung in use must carry; TCP carries any. */
  #largeSize(): 'least' | 'full' | undefined {
    return this.rung === 'relay-tcp' ? undefined : this.mtu === undefined ? 'full' : 'least'
  }

  #move(rung: Rung | 'cold', mtu: number | undefined, why: string, nowMs: number): void {
    this.#act({ kind: 'move', rung, mtu, why })
    if (isRung(rung) && rung !== this.rung) this.#echoes.health[rung].forgetLoss()
    this.cameFrom = this.rung
    this.rung = rung
    this.mtu = mtu
    this.sinceMs = nowMs
    this.why = why
    this.#suspicion.clear()
    this.history.unshift({ atMs: nowMs, rung, why })
    this.history.length = Math.min(this.history.length, MAX_HISTORY)
  }
}

/** To a worse rung: the better one no longer carries packets. */
export const isFall = (from: Rung | 'none' | 'cold', to: Rung | 'cold'): boolean =>
  isRung(from) && isRung(to) && RUNGS.indexOf(to) > RUNGS.indexOf(from)

const isRung = (rung: Rung | 'none' | 'cold'): rung is Rung => rung !== 'none' && rung !== 'cold'
