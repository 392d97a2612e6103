// Which gateway of a pool is active, decided by the gateways themselves from the heartbeats that they hear on the LAN,
// cloud or no cloud. Pure: heartbeats come in as calls, time is an argument, `standing` is what to tell the others.
//
//   listening ── nobody claims the role for a second ──▶ active ── a stronger claim is heard ──▶ standby
//       └────── a claim is heard ──▶ standby ── it falls silent for a second, or hands over ──▶ active, in a higher term
//
// A claim is stronger by its term, then by the place among the candidates, then by name, all of which ride in the
// heartbeat: two that hear each other agree, whatever objects they know. Every take-over begins a term higher than any
// heard of, and terms are kept on disk, so that a gateway that comes back from the past claims less than its successor.
// Two that are active at once, on a LAN that split, each serve who hears them, and settle in one heartbeat once they meet.
//
// Nobody waits where nothing is to be waited for: who was active as it ended goes on in its old term, and a new node
// that comes first in the objects begins in term 0, which every other claim beats, and becomes term 1 after a second.

import { isStronger, type Claim, type Heard } from '../lib/lan.ts'
import { MAX_TERM } from '../lib/wire/lan.ts'

export type Standing = {
  readonly role: 'listening' | 'standby' | 'active'
  readonly term: number
  /** The active gateway's node, as known here; '' for none. While leaving, who is to follow. */
  readonly follows: string
  readonly priority: number
  readonly leaving: boolean
  readonly handedOver: boolean
}

/** What was kept of the last run. */
export type Kept = { readonly term: number; readonly active: boolean }

export const HEARTBEAT_MS = 300
/** Three heartbeats and a little: a lost one, or two, change nothing. */
export const SILENCE_MS = 1_000
/** Between the take-overs of standbys that all miss the active one. */
const STAGGER_MS = 150
/** How often `step` is to be called. */
export const STEP_MS = 100
/** A step that comes so much too late means that we did not run; what was sent in that time is yet to be read. */
const STALL_MS = 200
const FRESH_MS = 1_200

type Rival = Heard & { readonly heardMs: number }

export class Election {
  readonly #node: string
  readonly #kept: Kept | undefined
  readonly #rivals = new Map<string, Rival>()
  #candidates: readonly string[] = []
  #role: Standing['role'] = 'listening'
  #term: number
  #maxTerm: number
  #leader: (Claim & { heardMs: number }) | undefined
  /** Since when silence counts; undefined while we are no candidate. */
  #fromMs: number | undefined
  #plannedMs: number | undefined
  #quietUntilMs = -Infinity
  #successor = ''
  #handedOver = false
  /** Since when the role is what it is. */
  sinceMs: number

  constructor(options: { readonly node: string; readonly kept: Kept | undefined; readonly nowMs: number }) {
    this.#node = options.node
    this.#kept = options.kept
    this.#term = options.kept?.term ?? 0
    this.#maxTerm = this.#term
    this.sinceMs = options.nowMs
  }

  /** @param candidates of our pool, in the order of the objects. */
  setCandidates(candidates: readonly string[], nowMs: number): void {
    this.#candidates = candidates
    for (const node of this.#rivals.keys()) if (!candidates.includes(node)) this.#rivals.delete(node)
    if (this.#leader !== undefined && !candidates.includes(this.#leader.node)) this.#leader = undefined
    if (!candidates.includes(this.#node)) {
      this.#fromMs = undefined
      if (this.#role !== 'standby') this.#become('standby', nowMs)
    } else if (this.#fromMs === undefined) {
      this.#fromMs = nowMs
      this.#begin(nowMs)
    }
  }

  /** @returns whether the speaker should hear from us at once: it claims what is ours. */
  heard(heard: Heard, nowMs: number): boolean {
    if (heard.node === this.#node || !this.#candidates.includes(heard.node)) return false
    this.#rivals.set(heard.node, { ...heard, heardMs: nowMs })
    this.#maxTerm = Math.max(this.#maxTerm, heard.term)
    if (heard.role !== 'active') return false
    if (this.#role === 'active') {
      if (!isStronger(heard, this.#ownClaim())) return true
      this.#become('standby', nowMs)
    } else if (this.#role === 'listening') this.#become('standby', nowMs)
    const leader = this.#leader
    if (leader === undefined || leader.node === heard.node || isStronger(heard, leader) || this.#isSilent(nowMs))
      this.#leader = { node: heard.node, term: heard.term, priority: heard.priority, heardMs: nowMs }
    if (heard.leaving && heard.follows === this.#node && this.#fromMs !== undefined) this.#takeOver(true, nowMs)
    return false
  }

  /** @returns who would take over if we left, or undefined where nobody can: then there is nothing to wait for. */
  successor(nowMs: number): string | undefined {
    return this.#role === 'active' ? this.standbys(nowMs)[0] : undefined
  }

  /** From now on we say that we leave, and to whom. @returns see `successor`. */
  leave(nowMs: number): string | undefined {
    const successor = this.successor(nowMs)
    this.#successor = successor ?? ''
    return successor
  }

  step(nowMs: number): void {
    this.#forgiveStall(nowMs)
    this.#plannedMs = nowMs + STEP_MS
    if (this.#fromMs === undefined || this.#candidates.length === 0) return
    switch (this.#role) {
      case 'active':
        // Alone for a second in term 0: nobody was before us.
        if (this.#term === 0 && nowMs - this.#fromMs >= SILENCE_MS) this.#term = this.#nextTerm()
        return
      case 'listening':
      case 'standby':
        if (this.#isSilent(nowMs)) this.#takeOver(false, nowMs)
    }
  }

  standing(): Standing {
    const active = this.#role === 'active'
    return {
      role: this.#role,
      // A standby says which term it is in, so that all know how high to go.
      term: active ? this.#term : this.#maxTerm,
      follows: active ? this.#successor || this.#node : (this.#leader?.node ?? ''),
      priority: this.#ownClaim().priority,
      leaving: active && this.#successor !== '',
      handedOver: active && this.#handedOver,
    }
  }

  /** After a stall nothing is claimed before what came meanwhile is read. */
  mayClaim(nowMs: number): boolean {
    return nowMs >= this.#quietUntilMs
  }

  /** Standbys that were heard lately, in the order of the candidates. */
  standbys(nowMs: number): readonly string[] {
    return this.#candidates.filter((node) => {
      const rival = this.#rivals.get(node)
      return rival?.role === 'standby' && nowMs - rival.heardMs < FRESH_MS
    })
  }

  #begin(nowMs: number): void {
    const first = this.#kept === undefined && this.#candidates[0] === this.#node
    const alone = this.#candidates.length === 1
    if (this.#role === 'listening' && this.#leader === undefined && (this.#kept?.active === true || first || alone))
      this.#become('active', nowMs)
  }

  #ownClaim(): Claim {
    const place = this.#candidates.indexOf(this.#node)
    return { node: this.#node, term: this.#term, priority: place === -1 ? 0xffff : place }
  }

  /** Standbys before us, who would take over sooner. */
  #rank(nowMs: number): number {
    const before = this.#candidates.slice(0, Math.max(0, this.#candidates.indexOf(this.#node)))
    return this.standbys(nowMs).filter((node) => before.includes(node)).length
  }

  #isSilent(nowMs: number): boolean {
    if (this.#fromMs === undefined) return false
    const lastMs = Math.max(this.#leader?.heardMs ?? -Infinity, this.#fromMs)
    return nowMs - lastMs >= SILENCE_MS + this.#rank(nowMs) * STAGGER_MS
  }

  #takeOver(handedOver: boolean, nowMs: number): void {
    this.#term = this.#nextTerm()
    this.#become('active', nowMs)
    this.#handedOver = handedOver
  }

  /** At the end of all terms, which no honest node reaches, the order decides. */
  #nextTerm(): number {
    this.#maxTerm = Math.min(Math.max(this.#maxTerm, this.#term) + 1, MAX_TERM)
    return this.#maxTerm
  }

  #become(role: 'standby' | 'active', nowMs: number): void {
    if (role === 'active') this.#leader = undefined
    this.#role = role
    this.#successor = ''
    this.#handedOver = false
    this.sinceMs = nowMs
    // Who stood down waits for a whole silence again.
    if (role === 'standby' && this.#fromMs !== undefined) this.#fromMs = nowMs
  }

  #forgiveStall(nowMs: number): void {
    const late = nowMs - (this.#plannedMs ?? nowMs)
    if (late < STALL_MS) return
    if (this.#leader !== undefined) this.#leader.heardMs = Math.min(this.#leader.heardMs + late, nowMs)
    if (this.#fromMs !== undefined) this.#fromMs = Math.min(this.#fromMs + late, nowMs)
    this.#quietUntilMs = nowMs + STEP_MS
  }
}
