// All ways to nodes: the sessions of agents, and who comes in for them: kube-apiserver by CONNECT, clients of kubelets by
// the name or address of the node, programs and people through the proxy on the relay's own port.

import { covering } from '../lib/cidr.ts'
import type { KeyPair } from '../lib/certificates.ts'
import type { KubernetesObject } from '../lib/k8s/objects.ts'
import type { Log } from '../lib/log.ts'
import type { RelayConfig } from './config.ts'
import { createEgressDial } from './egress-dial-client.ts'
import { createEgressTable, routedNode, type EgressRoute } from './egress-route.ts'
import { runEgressServer } from './egress-server.ts'
import type { NodeWays } from './forward.ts'
import { runKubeletServer } from './kubelet-server.ts'
import { KUBELET_PORT } from './node-dial.ts'
import { followUsers } from './ops-users-loop.ts'
import { createProxy } from './proxy-server.ts'
import type { Connect } from './tls-server.ts'

export type OpsServerOptions = {
  readonly config: Pick<
    RelayConfig,
    'egressSocket' | 'egressListen' | 'egressUsers' | 'cloudNodes' | 'kubeletListen' | 'proxyUsers'
  >
  readonly certificate: KeyPair
  readonly authorityPem: string
  /** Of this relay, or of all relays. */
  readonly sessions: NodeWays
  /** Node objects, as far as the relay has any. */
  readonly nodes: () => readonly KubernetesObject[]
  readonly log: Log
}

export type OpsServer = {
  readonly connect: Connect
  readonly setCertificate: (certificate: KeyPair) => void
  readonly closed: Promise<void>
}

/** How old the table of nodes may be: with 10,000 nodes it takes some milliseconds to make. */
const TABLE_MS = 2_000

/** @throws UsageError naming what cannot be listened on or read. */
export async function runOpsServer(options: OpsServerOptions, signal: AbortSignal): Promise<OpsServer> {
  const { config, sessions, nodes, log } = options
  const { users, closed: usersClosed } = followUsers({ file: config.proxyUsers, log }, signal)
  const isCloud = covering(config.cloudNodes)
  const hasSession = (node: string): boolean => sessions.absence(node) === undefined
  const isKnown = (node: string): boolean => hasSession(node) || sessions.lostAt(node) !== undefined

  let table: (host: string, port: number) => EgressRoute
  let tableMs = -Infinity
  const route = (host: string, port: number): EgressRoute => {
    if (performance.now() - tableMs > TABLE_MS) {
      tableMs = performance.now()
      table = createEgressTable(nodes().map(routedNode), { hasSession, isKnown, isCloud })
    }
    return table(host, port)
  }
  const nodeOf = (host: string): string | undefined => {
    const found = route(host, KUBELET_PORT)
    return found.kind === 'node' ? found.node : undefined
  }

  const egress = await runEgressServer(
    {
      socket: config.egressSocket,
      listen: config.egressListen,
      users: config.egressUsers,
      certificate: options.certificate,
      authorityPem: options.authorityPem,
      dial: createEgressDial({ route, dialNode: sessions.dial, absence: sessions.absence }),
      log,
    },
    signal,
  )
  const kubelets = await runKubeletServer({ listen: config.kubeletListen, nodeOf, dial: sessions.dial, log }, signal)

  return {
    connect: createProxy({ users, nodeOf, dial: sessions.dial, log }),
    setCertificate: egress.setCertificate,
    closed: Promise.all([egress.closed, kubelets.closed, usersClosed]).then(() => undefined),
  }
}
