// Why a path is not direct, in words that tell an operator what would have to change. Pure.

import { formatSocketAddress, parseSocketAddress } from '../lib/address.ts'
import type { CandidateStatus, NatBehaviour } from '../lib/status.ts'
import { durationText } from '../lib/text-table.ts'
import type { Ladder } from './ladder.ts'
import type { Path } from './path.ts'
import type { TriedCandidate } from './punch.ts'

/** @returns '' for a direct path. */
export function reasonOf(path: Path, own: NatBehaviour, peer: NatBehaviour, peerPool: string, nowMs: number): string {
  const silence = silenceOf(path, nowMs)
  if (path.rung === 'direct') return silence
  if (path.rung === 'cold') return 'no traffic: the first packet goes over the relay and wakes it'
  const parts = [
    silence,
    path.rung === 'none' ? 'no path yet' : path.ladder.cameFrom === 'direct' ? path.ladder.why : '',
    obstacleText(own, peer, peerPool) ?? tried(path, nowMs),
    path.punch.trying ? 'trying now' : nextTry(path, nowMs),
  ]
  return parts.filter((part) => part !== '').join('; ')
}

/** Longer than any path takes to be left for one that answers. */
const SILENCE_MS = 3_000

/** @returns '' for a peer that answers; else how long it has been silent on every rung. */
export function silenceOf(path: Path, nowMs: number): string {
  const ms = path.ladder.silentMs(nowMs)
  return ms < SILENCE_MS ? '' : `the peer has not answered for ${Math.round(ms / 1000)} s, on any path`
}

/** Agents look for themselves before they believe it, so they are told sooner; a path that begins has its time. */
const DOUBT_MS = 1_500

/** Whether packets to the peer may be lost. */
export const isDoubtful = (ladder: Pick<Ladder, 'rung' | 'sinceMs' | 'silentMs'>, nowMs: number): boolean =>
  ladder.rung === 'none' ? nowMs - ladder.sinceMs >= SILENCE_MS : ladder.silentMs(nowMs) >= DOUBT_MS

export type Obstacle = 'udp-blocked' | 'one-nat' | 'nats'

/** What is known to stand in the way before a packet is sent; behind one NAT a path inside of the site may do without it. */
export function obstacleOf(own: NatBehaviour, peer: NatBehaviour): Obstacle | undefined {
  if (own.udp === 'blocked' || peer.udp === 'blocked') return 'udp-blocked'
  if (isOneNat(own, peer)) return 'one-nat'
  return punchable(own, peer) ? undefined : 'nats'
}

function obstacleText(own: NatBehaviour, peer: NatBehaviour, peerPool: string): string | undefined {
  switch (obstacleOf(own, peer)) {
    case 'udp-blocked':
      return own.udp === 'blocked'
        ? 'UDP is blocked at this site: let it out, or stay on the relay'
        : `UDP is blocked at ${peerPool}: let it out there, or stay on the relay`
    case 'one-nat':
      return `this site and ${peerPool} are behind one NAT, which does not let them reach each other`
    case 'nats':
      return `NATs here (${describe(own)}) and at ${peerPool} (${describe(peer)}) do not punch: forward a UDP port, use IPv6, or stay on the relay`
    case undefined:
      return undefined
  }
}

function isOneNat(own: NatBehaviour, peer: NatBehaviour): boolean {
  if (own.mapping === 'none' || peer.mapping === 'none' || (own.hairpin !== false && peer.hairpin !== false))
    return false
  const [a, b] = [own, peer].map(({ mapped }) => (mapped === undefined ? undefined : parseSocketAddress(mapped)))
  return a !== undefined && a.address === b?.address
}

/** A mapping that depends on the destination needs a peer whose filter lets an unknown port in. */
function punchable(a: NatBehaviour, b: NatBehaviour): boolean {
  const hard = (nat: NatBehaviour) =>
    nat.mapping === 'address-dependent' || nat.mapping === 'address-and-port-dependent'
  const strict = (nat: NatBehaviour) => hard(nat) || nat.filtering === 'address-and-port-dependent'
  return !(hard(a) && strict(b)) && !(hard(b) && strict(a))
}

const describe = ({ mapping, filtering }: NatBehaviour): string =>
  mapping.startsWith('address')
    ? 'symmetric'
    : filtering === 'address-and-port-dependent'
      ? 'port restricted'
      : filtering

function tried(path: Path, nowMs: number): string {
  const candidates = [...path.punch.candidates.values()]
  if (candidates.length === 0) return 'the peer has announced no address yet'
  const probes = candidates.reduce((sum, candidate) => sum + candidate.probes, 0)
  if (probes === 0) return ''
  if (candidates.some(({ refused }) => refused)) return 'probes were answered, but WireGuard did not get through'
  const answeredMs = Math.max(...candidates.map((candidate) => candidate.answeredMs))
  const answer =
    answeredMs === -Infinity
      ? ' without an answer'
      : nowMs - answeredMs < ANSWER_MS
        ? ''
        : `, the last answer ${durationText(nowMs - answeredMs)} ago`
  return `${probes} probes to ${candidates.length} addresses${answer}`
}

function nextTry(path: Path, nowMs: number): string {
  const seconds = Math.ceil((path.punch.nextAttemptMs - nowMs) / 1000)
  return seconds > 0 && seconds < 3600 ? `next try in ${seconds} s` : ''
}

/** Longer than an answer takes: probes that are older have none. */
const ANSWER_MS = 3_000

export function candidateStatus(candidate: TriedCandidate, nowMs: number): CandidateStatus {
  const { kind, rttMs, probes, unanswered, answeredMs, refused } = candidate
  const address = formatSocketAddress(candidate.address)
  if (rttMs === undefined)
    return probes === 0
      ? { address, kind, result: 'not tried yet', outcome: 'untried' }
      : { address, kind, result: `no answer to ${probes} probes`, outcome: 'silent' }
  const answered = `answered in ${rttMs.toFixed(1)} ms`
  if (refused) return { address, kind, result: `${answered}, but WireGuard did not get through`, outcome: 'refused' }
  if (unanswered === 0 || nowMs - answeredMs < ANSWER_MS)
    return { address, kind, result: answered, outcome: 'answered' }
  const since = `${answered} ${durationText(nowMs - answeredMs)} ago, and to none of ${unanswered} probes since`
  return { address, kind, result: since, outcome: 'silent' }
}
