// The kubelets of a lab: one process for all of its nodes, each with an HTTPS server in its node's network, a serving
// certificate of its own, and the node's pods. One argument: the lab's id. Says `listening` on descriptor 3.

import { closeSync, writeSync } from 'node:fs'
import { issueServer, validFor } from '../../../lib/certificates.ts'
import { openAuthority } from '../../../lib/net/authority.ts'
import { runUntilSignal } from '../../../lib/net/lifetime.ts'
import { cgroupRoot } from '../machine.ts'
import { cgroupOf, CLOUD, pathsOf } from '../names.ts'
import { readState } from '../state.ts'
import { listenIn } from './netns-socket.ts'
import { podsOfLab, runPods } from './pods.ts'
import { createKubelet } from './server.ts'
import { Meter, statsOf } from './stats.ts'

export const KUBELET_PORT = 10250
const CERTIFICATE_DAYS = 30
const SAMPLE_MS = 5_000

await runUntilSignal(async (signal) => {
  const [id = 'lab', ...flags] = process.argv.slice(2)
  const state = readState(id)
  const { nodes } = state.topology
  const paths = pathsOf(id)
  const root = cgroupRoot()
  const pods = podsOfLab(state)
  const groupOf = (node: string) => `${cgroupOf(id)}/${node}`
  const groups = [...nodes.map(({ name }) => groupOf(name)), ...pods.map(({ cgroup }) => cgroup)]
  const meter = new Meter(groups.map((group) => `${root}/${group}`))
  setInterval(() => meter.sample(), SAMPLE_MS).unref()
  const authority = await openAuthority(paths.stateDir(CLOUD), Date.now())
  const servers = await Promise.all(
    nodes.map(async ({ name, addresses }) => {
      const own = pods.filter(({ placed }) => placed.node === name)
      const subject = { commonName: `system:node:${name}`, organization: 'system:nodes' }
      const server = createKubelet({
        node: name,
        pods: own,
        stats: () => statsOf(name, groupOf(name), own, root, meter),
        serving: await issueServer(authority, [name, ...addresses], validFor(Date.now(), CERTIFICATE_DAYS), subject),
        clientCa: authority.certificatePem,
        webSockets: !flags.includes('--spdy-only'),
      })
      server.listen({ fd: listenIn(paths.networkNamespace(name), KUBELET_PORT) })
      return server
    }),
  )
  signal.addEventListener('abort', () => {
    for (const server of servers) {
      server.close()
      server.closeAllConnections()
    }
  })
  try {
    writeSync(3, 'listening\n')
    closeSync(3)
  } catch {
    // Started by hand, without anybody who waits.
  }
  await runPods(id, pods, signal)
})
