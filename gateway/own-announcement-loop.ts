// Our own announcement, signed anew when what it says, or the certificate that it is signed for, is another.

import { createPrivateKey, X509Certificate } from 'node:crypto'
import type { Log } from '../lib/log.ts'
import type { NodeIdentity } from '../lib/net/identity.ts'
import { createUpkeep } from '../lib/net/upkeep.ts'
import type { SignedAnnouncement } from '../lib/wire/signal.ts'
import { signAnnouncement, type Announcement } from './announcement.ts'

export type OwnFacts = Pick<Announcement, 'wireguardKey' | 'candidates' | 'nat' | 'role'>

export type OwnAnnouncement = {
  /** Undefined before the first `trigger`. */
  readonly current: () => SignedAnnouncement | undefined
  /** It may be another now. */
  readonly trigger: () => void
}

export function runOwnAnnouncement(
  options: {
    /** May change its fields at any time; a `trigger` then signs anew. */
    readonly identity: Pick<NodeIdentity, 'node' | 'certificatePem' | 'keyPem'>
    readonly facts: () => OwnFacts
    /** Kept on disk, so that a successor's announcements are newer. */
    readonly nextSequence: () => Promise<number>
    readonly onOwn: (announcement: SignedAnnouncement) => void
    readonly log: Log
  },
  signal: AbortSignal,
): OwnAnnouncement {
  const { identity, log } = options
  let own: SignedAnnouncement | undefined
  let ownText = ''
  const upkeep = createUpkeep(
    {
      pass: async () => {
        const { nat, ...facts } = options.facts()
        // How long our NAT keeps mappings is nothing to peers.
        const { lifetimeMs: _least, lifetimeBelowMs: _below, ...told } = nat
        const announcement = { node: identity.node, ...facts, nat: told }
        const { certificatePem, keyPem } = identity
        const text = JSON.stringify([announcement, certificatePem])
        if (text === ownText) return
        const certificate = new X509Certificate(certificatePem)
        const sequence = await options.nextSequence()
        own = signAnnouncement({ ...announcement, sequence }, certificate, createPrivateKey(keyPem))
        ownText = text
        options.onOwn(own)
      },
      onError: (err) => log.error({ err }, 'our announcement could not be made'),
    },
    signal,
  )
  return { current: () => own, trigger: upkeep.trigger }
}
