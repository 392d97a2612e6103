// What the relay shows as a client, by its own CA: a certificate that is made when it is first needed and anew when it ages.

import { createClient, validFor, type KeyPair } from '../lib/certificates.ts'

const DAYS = 7
const RENEW_AFTER_MS = 3 * 86_400_000

/** @param now Unix milliseconds. */
export function ownCredentials(
  authority: KeyPair,
  subject: Parameters<typeof createClient>[1],
  now: () => number,
): () => Promise<KeyPair> {
  let current: Promise<KeyPair> | undefined
  let issuedAtMs = 0
  return () => {
    const nowMs = now()
    // A clock that was set back is older than what it issued.
    const isFresh = nowMs >= issuedAtMs && nowMs - issuedAtMs < RENEW_AFTER_MS
    if (current === undefined || !isFresh) {
      issuedAtMs = nowMs
      current = createClient(authority, subject, validFor(nowMs, DAYS))
      current.catch(() => (current = undefined))
    }
    return current
  }
}
