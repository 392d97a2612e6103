// What the embedded API shows to kubelets: a certificate like that of a kube-apiserver, made when it is first needed and
// anew when it ages.

import { createClient, validFor, type KeyPair } from '../../lib/certificates.ts'
import { GROUP_MASTERS } from '../../lib/identity.ts'

const SUBJECT = { commonName: 'kube-apiserver-kubelet-client', organization: GROUP_MASTERS }
const DAYS = 7
const RENEW_AFTER_MS = 3 * 86_400_000

/** @param now Unix milliseconds. */
export function kubeletCredentials(authority: KeyPair, now: () => number): () => Promise<KeyPair> {
  let current: Promise<KeyPair> | undefined
  let issuedAtMs = 0
  return () => {
    const nowMs = now()
    // A clock that was set back is older than what it issued.
    const isFresh = nowMs >= issuedAtMs && nowMs - issuedAtMs < RENEW_AFTER_MS
    if (current === undefined || !isFresh) {
      issuedAtMs = nowMs
      current = createClient(authority, SUBJECT, validFor(nowMs, DAYS))
      current.catch(() => (current = undefined))
    }
    return current
  }
}
