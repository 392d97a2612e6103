// The path to one peer: whether it is kept up at all, when a direct address is looked for, and which rung of the ladder
// carries traffic. Pure: events come in as calls, `step` gives back what to do and `nextMs` when to step again; time and
// randomness are arguments.
//
//   cold ── traffic, or the peer's interest ──▶ awake: search (punch.ts) and ladder (ladder.ts)
//   awake ── nobody has interest any more ──▶ cold
//
// Nothing is sent to a peer before it said `ready` (its device knows our key): a handshake that it does not answer costs
// WireGuard 5 s. What a pair without a path sends goes to fm-tcp (packet-client.ts).

import type { SocketAddress } from '../lib/address.ts'
import type { Rung } from '../lib/status.ts'
import type { Candidate } from './announcement.ts'
import { Interest, type InterestOptions } from './interest.ts'
import { Ladder, type LadderAction } from './ladder.ts'
import { Punch, type PunchAction } from './punch.ts'

export type PathAction =
  | PunchAction
  | LadderAction
  /** Ask the peer whether its devices know our key. */
  | { readonly kind: 'ask' }

/** Where nothing carries traffic yet, the relay does so soonest: probes and handshakes do not compete with it at first. */
const RELAY_HEAD_START_MS = 300
/** A pair that has no direct path so long after it began may want the relay's UDP: most are direct by then. */
const UDP_RELAY_AFTER_MS = 1_500
const ASK_INTERVAL_MS = 1_000
/**
 * A step that comes this much too late means that we did not run; silence in that time is forgiven. On a busy machine all
 * steps do: then suspicions take longer, and do not add to the load.
 */
const STALL_MS = 30
const MIN_SLEEP_MS = 10

export class Path {
  readonly punch: Punch
  readonly ladder: Ladder
  readonly #interest: Interest
  #actions: PathAction[] = []
  #readySinceMs: number | undefined
  #askedMs = -Infinity
  /** When the pair was last woken. */
  #wokeMs: number
  #relayOpen = false
  /** The peer's call is to be answered, as soon as a direct address may be looked for. */
  #called = false
  #plannedMs = -Infinity

  /**
   * @param options.controlling whether this side chooses addresses and sends first; the other has the opposite.
   * @param options.isLikely see Punch.
   * @param options.rung which the kernel's route points to now: after a restart of ours, what carries traffic is kept.
   */
  constructor(
    options: InterestOptions & {
      readonly controlling: boolean
      readonly isLikely?: () => boolean
      readonly rung: Rung | 'cold'
      readonly nowMs: number
    },
  ) {
    const { controlling, rung, nowMs } = options
    this.punch = new Punch(controlling, options.isLikely)
    this.ladder = new Ladder({ controlling, rung, punch: this.punch, nowMs }, (action) => this.#actions.push(action))
    this.#wokeMs = nowMs
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

  /** The peer has opened its NAT for us: because it has traffic for us, or, with `reply`, since we asked. */
  called(reply: boolean, nowMs: number): void {
    this.ready(nowMs)
    if (!reply) this.#peerInterest(nowMs)
    this.#called = !reply
    if (reply) this.punch.called(true, nowMs)
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
    this.ladder.setUdpBound(bound, nowMs)
  }

  /** @param interested whether the peer has traffic for us. */
  echoRequested(rung: Rung, interested: boolean, nowMs: number): void {
    this.ready(nowMs)
    if (interested) this.#peerInterest(nowMs)
    this.ladder.echoRequested(rung, nowMs)
  }

  echoReplied(rung: Rung, sequence: number, nowMs: number): void {
    this.ready(nowMs)
    this.ladder.echoReplied(rung, sequence, nowMs)
  }

  // === What is known

  /** What carries traffic. */
  get rung(): Rung | 'none' | 'cold' {
    return this.ladder.rung
  }

  /** Where packets must be smaller than the devices' MTU, bytes. */
  get mtu(): number | undefined {
    return this.ladder.mtu
  }

  get isReady(): boolean {
    return this.#readySinceMs !== undefined
  }

  /** When to step again if no event comes before. */
  get nextMs(): number {
    return this.#plannedMs
  }

  /** Whether a session over the relay's UDP would be of use: there is no direct path, and there has been time for one. */
  wantsUdpRelay(nowMs: number): boolean {
    if (this.rung === 'cold' || this.rung === 'direct' || this.#readySinceMs === undefined) return false
    return nowMs - this.#begunMs(this.#readySinceMs) > UDP_RELAY_AFTER_MS
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
      this.ladder.watch(nowMs)
      this.#search(nowMs, random)
      this.ladder.promote(nowMs)
      const relayUsable = this.#relayOpen && this.isReady
      const ladderMs = this.ladder.echo(relayUsable, this.#interest.isOwn(nowMs), nowMs)
      this.#plannedMs = Math.max(Math.min(ladderMs, this.punch.nextMs), nowMs + MIN_SLEEP_MS)
    }
    const actions = this.#actions
    this.#actions = []
    return actions
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
    this.#wokeMs = nowMs
    this.ladder.wake(nowMs)
    this.punch.startOver(nowMs)
  }

  #sleep(nowMs: number): void {
    if (this.rung === 'cold') return
    this.punch.startOver(Infinity)
    this.ladder.sleep('no traffic', nowMs)
  }

  #ask(nowMs: number): void {
    if (this.isReady || !this.#relayOpen || nowMs - this.#askedMs < ASK_INTERVAL_MS) return
    this.#askedMs = nowMs
    this.#actions.push({ kind: 'ask' })
  }

  #forgiveStall(nowMs: number): void {
    const lateMs = nowMs - this.#plannedMs
    if (lateMs >= STALL_MS && Number.isFinite(lateMs)) this.ladder.forgive(lateMs)
  }

  #search(nowMs: number, random: number): void {
    if (this.rung === 'direct' && !this.ladder.isLost(nowMs)) return this.punch.stop()
    if (!this.#maySearch(nowMs)) return
    if (this.#called) this.punch.called(false, nowMs)
    this.#called = false
    const own = this.#interest.isOwn(nowMs)
    for (const action of this.punch.step(nowMs, random, { known: this.ladder.wasDirect, callable: this.#relayOpen }))
      // Only a side with traffic of its own calls the peer; see interest.ts.
      if (action.kind !== 'call' || action.reply || own) this.#actions.push(action)
  }

  /** Whether a direct path is to be looked for now. */
  #maySearch(nowMs: number): boolean {
    if (this.#readySinceMs === undefined || this.rung === 'cold') return false
    if (this.rung === 'direct' && !this.ladder.isLost(nowMs)) return false
    const begunMs = this.#begunMs(this.#readySinceMs)
    return this.rung !== 'none' || !this.#relayOpen || nowMs - begunMs >= RELAY_HEAD_START_MS
  }
}
