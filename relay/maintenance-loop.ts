// What the relay does now and then: renews its server certificate, forgets old tokens, hands counters to the metrics.

import type { KeyPair } from '../lib/certificates.ts'
import type { Log } from '../lib/log.ts'
import { openServerCertificate, type ServerCertificate } from '../lib/net/authority.ts'
import { removeOldTokens } from '../lib/net/join-tokens.ts'
import { pause } from '../lib/net/lifetime.ts'

export type MaintenanceOptions = {
  readonly stateDir: string
  readonly authority: KeyPair
  /** The relay's public names. */
  readonly names: readonly string[]
  readonly certificate: ServerCertificate
  readonly onCertificate: (certificate: KeyPair) => void
  readonly updateMetrics: () => void
  readonly log: Log
}

const PERIOD_MS = 5_000
const TOKENS_PERIOD_MS = 3600_000
/** The start belongs to those who wait for it. */
const FIRST_TOKENS_MS = 30_000

export async function runMaintenance(options: MaintenanceOptions, signal: AbortSignal): Promise<void> {
  const { stateDir, authority, names, log } = options
  let { renewAtMs } = options.certificate
  let tokensAtMs = Date.now() + FIRST_TOKENS_MS
  while (!signal.aborted) {
    options.updateMetrics()
    const nowMs = Date.now()
    try {
      if (nowMs >= renewAtMs) {
        const renewed = await openServerCertificate(stateDir, authority, names, nowMs)
        options.onCertificate(renewed)
        renewAtMs = renewed.renewAtMs
        log.info({ until: new Date(renewAtMs).toISOString() }, 'server certificate renewed')
      }
      if (nowMs >= tokensAtMs) {
        tokensAtMs = nowMs + TOKENS_PERIOD_MS
        await removeOldTokens(stateDir, nowMs)
      }
    } catch (err) {
      log.error({ err }, 'maintenance failed; trying again')
    }
    await pause(PERIOD_MS, signal)
  }
}
