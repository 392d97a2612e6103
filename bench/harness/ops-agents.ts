// The sessions of many nodes' agents with a relay in one process, in whatever namespace it was started in. The bench calls
// these by name (ops-world.ts).

import { openOpsClient, type OpsClient } from '../../agent/ops-client.ts'
import { dialTarget } from '../../agent/ops-dial-client.ts'
import { parseTarget } from '../../agent/ops-targets.ts'
import { createClient, validFor, type KeyPair } from '../../lib/certificates.ts'
import { createLog } from '../../lib/log.ts'
import { collector } from '../../lib/net/collector.ts'
import { trimAllocated } from '../../lib/net/memory.ts'
import { serve } from '../../test/lib/netns.ts'

export type Agents = {
  readonly names: readonly string[]
  readonly authority: KeyPair
  readonly relay: string
  readonly kubeletPort: number
  /** HOST:PORT, beside the kubelet. */
  readonly targets: readonly string[]
}

const log = createLog('agent', 'silent')
const clients = new Map<string, OpsClient>()
const never = new AbortController().signal
const certificates = new Map<string, Promise<KeyPair>>()
const collect = collector({ type: 'major', execution: 'sync', flavor: 'last-resort' })

/** Issued before the clock runs. */
const certificateOf = (name: string, authority: KeyPair): Promise<KeyPair> => {
  const subject = { commonName: `system:node:${name}`, organization: 'system:nodes' }
  const made = certificates.get(name) ?? createClient(authority, subject, validFor(Date.now(), 1))
  certificates.set(name, made)
  return made
}

serve({
  pid: () => process.pid,
  async prepare({ names, authority }: Pick<Agents, 'names' | 'authority'>) {
    for (const name of names) await certificateOf(name, authority)
  },
  async start({ names, authority, relay, kubeletPort, targets }: Agents) {
    const declared = targets.map(parseTarget)
    for (const name of names) {
      const pair = await certificateOf(name, authority)
      const identity = { node: name, ...pair, caPem: authority.certificatePem, relays: [relay], stun: [], server: '' }
      const policy = { node: name, kubeletPort, targets: declared }
      const dial = (host: string, port: number) => dialTarget(policy, host, port)
      clients.set(name, openOpsClient({ identity, dial, log }, never))
    }
  },
  connected: () => [...clients.values()].filter((client) => client.state().state === 'connected').length,
  /** What is left then is in use. */
  collect() {
    collect()
    trimAllocated()
  },
  streams: () => [...clients.values()].reduce((sum, client) => sum + client.state().streams, 0),
})
