// Our DNS as a process of its own, for a bench: the agent's server and zone over the bench's names, without the agent's other
// work. The port is its argument.

import { clusterOf } from '../../agent/cluster.ts'
import { runDnsServer } from '../../agent/dns-server.ts'
import { openUpstream } from '../../agent/dns-upstream-client.ts'
import { zoneOf } from '../../agent/dns-zone.ts'
import { hereOf } from '../../agent/topology.ts'
import { createLog } from '../../lib/log.ts'
import { runUntilSignal } from '../../lib/net/lifetime.ts'
import { DOMAIN, services } from './dns-names.ts'

const cluster = clusterOf({ services, slices: [], nodes: [], nodePools: [], gateways: [] })
const zone = zoneOf({ cluster, here: hereOf(cluster, 'n1'), domains: [DOMAIN], servers: [] })

await runUntilSignal(async (signal) => {
  const upstream = openUpstream({ servers: [], resolvConf: '/nonexistent', except: () => [] }, signal)
  const options = {
    addresses: ['127.0.0.1'],
    port: Number(process.argv[2]),
    ensureAddress: async () => undefined,
    zone: () => zone,
    upstream,
    log: createLog('agent', 'warn'),
  }
  await runDnsServer(options, signal).done
})
