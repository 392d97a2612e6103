// A daemon's identity while it runs: renewed in time by the certificate that the node has, and taken up from disk when the
// other daemon of the node, or a person, has replaced it. Whoever holds the value reads its fields when it dials or signs.

import { X509Certificate } from 'node:crypto'
import { isDeepStrictEqual } from 'node:util'
import { backoffMs } from '../backoff.ts'
import { issuedMs } from '../certificates.ts'
import { createClock, type Clock } from '../clock.ts'
import type { Log } from '../log.ts'
import { renewalMs, spanMsOf } from '../renewal.ts'
import type { JoinRefusalCode } from '../wire/join.ts'
import { enrolPod, renew, type PodJoin } from './enrolment.ts'
import { readIfPresent, writeWhole } from './files.ts'
import { damageOf, IdentityError, identityPaths, loadIdentity, type NodeIdentity } from './identity.ts'
import { JoinError } from './issuer-client.ts'
import { pause } from './lifetime.ts'

/** Its fields change; `onChange` tells when. */
export type LiveIdentity = NodeIdentity & {
  /** The listener is called after each change, for as long as the daemon runs. */
  readonly onChange: (listener: () => void) => void
  readonly clock: Clock
  /** Resolves after the signal aborted. */
  readonly done: Promise<void>
}

export type IdentityOptions = {
  readonly stateDir: string
  /** The gateway leaves renewals to the agent of its node, and takes them on where there is none. */
  readonly daemon: 'agent' | 'gateway'
  /** How this node joins where it is none yet, or none any more. */
  readonly join?: PodJoin | undefined
  /** Flags win over what is on disk. */
  readonly withFlags?: (identity: NodeIdentity) => NodeIdentity
  readonly log: Log
}

/** The disk is looked at so often. */
const LOOK_MS = 15_000
const RETRY = { baseMs: 30_000, capMs: 3_600_000 }
const JOIN_RETRY = { baseMs: 1_000, capMs: 60_000 }
/** Refusals that no later attempt with the same certificate changes. */
const FOR_GOOD: ReadonlySet<string> = new Set([
  'FULMAR_CERTIFICATE_EXPIRED',
  'FULMAR_CERTIFICATE_UNKNOWN',
  'FULMAR_NODE_DELETED',
] satisfies readonly JoinRefusalCode[])
/** Once the certificate has expired, nothing that needs the relay works. */
const RETRY_EXPIRED_MS = 60_000
const LEAVE_TO_AGENT_MS = 5 * 60_000
/** A node whose clock stays wrong. */
const ASK_FOR_TIME_MS = 24 * 3_600_000
/** Of a short life, as a share of it, so that all of this fits in: what is done often, and what the agent is left. */
const SHARE = 0.02
const LEAVE_SHARE = 0.05

/** @throws IdentityError where there is none, and no way to come to one. */
export async function followIdentity(options: IdentityOptions, signal: AbortSignal): Promise<LiveIdentity> {
  const { stateDir, log, withFlags = (identity: NodeIdentity) => identity } = options
  let current = await loadOrJoin(options, signal)
  let certificate = read(current)
  const listeners: (() => void)[] = []
  const clock = await openClock(stateDir, log)
  if (certificate !== undefined) clock.atLeast(issuedMs(certificate))
  const live = {
    ...withFlags(current),
    onChange: (listener: () => void) => void listeners.push(listener),
    clock,
    done: Promise.resolve(),
  }

  const use = (next: NodeIdentity): void => {
    if (isDeepStrictEqual(next, current)) return
    current = next
    certificate = read(next)
    if (certificate !== undefined) clock.atLeast(issuedMs(certificate))
    Object.assign(live, withFlags(next))
    log.info({ node: next.node, until: certificate?.validToDate.toISOString() }, 'the identity is a new one')
    for (const listener of listeners) listener()
  }
  /** A folder that is being written, or was damaged under us, is no reason to give up what works. */
  const look = async (): Promise<void> => {
    try {
      const found = await loadIdentity(stateDir)
      const damage = damageOf(found, stateDir)
      if (damage !== undefined) throw new IdentityError(damage)
      use(found)
    } catch (err) {
      log.warn({ err }, 'the identity on disk cannot be read; going on with the one before')
    }
  }

  let failures = 0
  let nextTryMs = 0
  let askedMs = -Infinity
  /** Who does not know the time asks the issuer: the date of a new certificate is later than all that is known here. */
  const asksForTime = (): boolean => clock.isBehind() && performance.now() - askedMs >= ASK_FOR_TIME_MS
  const renewIfDue = async (): Promise<void> => {
    if (certificate === undefined || performance.now() < nextTryMs) return
    const spare = Math.min(LEAVE_TO_AGENT_MS, spanMsOf(certificate) * LEAVE_SHARE)
    const dueMs = renewalMs(certificate) + (options.daemon === 'gateway' ? spare : 0)
    const nowMs = clock.now()
    if (nowMs < dueMs && !asksForTime()) return
    const relay = live.relays[failures % live.relays.length]!
    try {
      use(await renew(stateDir, { ...current, clock }, new URL(relay)))
      failures = 0
      askedMs = performance.now()
    } catch (err) {
      const isInTime = nowMs < certificate.validToDate.getTime() && !clock.isBehind()
      const capMs = isInTime ? RETRY.capMs : RETRY_EXPIRED_MS
      const baseMs = Math.min(RETRY.baseMs, spanMsOf(certificate) * SHARE)
      nextTryMs = performance.now() + backoffMs({ baseMs, capMs }, ++failures, Math.random())
      if (options.join !== undefined && err instanceof JoinError && FOR_GOOD.has(err.code))
        return await joinAgain(options.join)
      log.warn({ ...reasonOf(err), url: relay }, 'the certificate could not be renewed; trying again')
    }
  }

  const joinAgain = async (join: PodJoin): Promise<void> => {
    try {
      use(await enrolPod(stateDir, join))
      failures = 0
      nextTryMs = 0
    } catch (err) {
      log.warn(reasonOf(err), 'cannot join again; trying again')
    }
  }

  const run = async (): Promise<void> => {
    while (!signal.aborted) {
      await renewIfDue()
      const lookMs = certificate === undefined ? LOOK_MS : Math.min(LOOK_MS, spanMsOf(certificate) * SHARE)
      await pause(lookMs, signal)
      if (!signal.aborted) await look()
    }
  }
  live.done = run()
  return live
}

async function loadOrJoin({ stateDir, join, log }: IdentityOptions, signal: AbortSignal): Promise<NodeIdentity> {
  for (let failures = 0; ;) {
    try {
      const found = await loadIdentity(stateDir)
      const damage = join && damageOf(found, stateDir)
      if (damage === undefined) return found
      throw new IdentityError(damage)
    } catch (error) {
      if (join === undefined || !(error instanceof IdentityError)) throw error
      try {
        return await enrolPod(stateDir, join)
      } catch (err) {
        log.warn({ ...reasonOf(err), url: join.relay.origin }, 'cannot join; trying again')
      }
      await pause(backoffMs(JOIN_RETRY, ++failures, Math.random()), signal)
      if (signal.aborted) throw error
    }
  }
}

/** What people can mend comes without a stack. */
const reasonOf = (err: unknown): object =>
  err instanceof JoinError ? { reason: err.message, code: err.code } : { err }

/** The floor is written when it rises; both daemons of a node write theirs, and the next start knows the last. */
async function openClock(stateDir: string, log: Log): Promise<Clock> {
  const { clock: file } = identityPaths(stateDir)
  const floorMs = Date.parse((await readIfPresent(file))?.trim() ?? '') || 0
  const keep = (ms: number): void => {
    writeWhole(file, `${new Date(ms).toISOString()}\n`).catch((err: unknown) =>
      log.warn({ err, path: file }, 'cannot save what time it is at the least'),
    )
  }
  const clock = createClock(floorMs, keep, Date.now)
  if (clock.isBehind()) log.warn({ floor: new Date(floorMs).toISOString() }, 'the clock of this node is wrong')
  return clock
}

function read({ certificatePem }: NodeIdentity): X509Certificate | undefined {
  try {
    return new X509Certificate(certificatePem)
  } catch {
    // Whoever shows it or signs with it says so.
    return undefined
  }
}
