// What a kubelet says of its node to the Kubernetes API: its addresses and that it is ready. One process does it for all
// nodes of a lab, each with the node's own certificate. One argument: JSON of KubeletNode[]. Ends when all is said.

import { availableParallelism, totalmem } from 'node:os'
import { setTimeout as sleep } from 'node:timers/promises'
import { createApiClient } from '../../lib/k8s/api-client.ts'
import { isNotFound } from '../../lib/k8s/api-error.ts'
import { NODES } from '../../lib/k8s/objects.ts'
import { loadIdentity } from '../../lib/net/identity.ts'

export type KubeletNode = { readonly name: string; readonly addresses: readonly string[]; readonly stateDir: string }

/** The kubelet's own defaults. */
const KUBELET_PORT = 10250
const PODS_MAX = 110
const SERVED_WITHIN_MS = 5_000
const RETRY_MS = 100

async function report({ name, addresses, stateDir }: KubeletNode): Promise<void> {
  const { server, caPem, certificatePem, keyPem } = await loadIdentity(stateDir)
  const client = createApiClient({ server, ca: caPem, cert: certificatePem, key: keyPem })
  const now = new Date().toISOString()
  const ready = {
    type: 'Ready',
    status: 'True',
    reason: 'KubeletReady',
    message: 'the lab runs its pods',
    lastHeartbeatTime: now,
    lastTransitionTime: now,
  }
  const resources = {
    cpu: String(availableParallelism()),
    memory: `${Math.floor(totalmem() / 1024)}Ki`,
    pods: String(PODS_MAX),
  }
  const status = {
    capacity: resources,
    allocatable: resources,
    daemonEndpoints: { kubeletEndpoint: { Port: KUBELET_PORT } },
    addresses: [...addresses.map((address) => ({ type: 'InternalIP', address })), { type: 'Hostname', address: name }],
    conditions: [ready],
  }
  for (const deadline = Date.now() + SERVED_WITHIN_MS; ; await sleep(RETRY_MS)) {
    try {
      await client.patch(NODES, { name }, { status }, { subresource: 'status' })
      return
    } catch (error) {
      // The relay may not have read the node's file yet.
      if (!isNotFound(error) || Date.now() > deadline) throw error
    }
  }
}

const nodes = JSON.parse(process.argv[2] ?? '[]') as readonly KubeletNode[]
const results = await Promise.allSettled(nodes.map(report))
const failures = results.flatMap((result, index) =>
  result.status === 'rejected' ? [`node ${nodes[index]!.name}: ${(result.reason as Error).message}`] : [],
)
for (const failure of failures) console.error(failure)
process.exit(failures.length > 0 ? 1 : 0)
