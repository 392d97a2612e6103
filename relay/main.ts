// `fulmar relay`: the daemon in the cloud. One TLS port for joins, sessions and the Kubernetes API; STUN beside it.

import type { IncomingMessage, ServerResponse } from 'node:http'
import { hostname, networkInterfaces } from 'node:os'
import { join } from 'node:path'
import type { KeyPair } from '../lib/certificates.ts'
import { createApiClient } from '../lib/k8s/api-client.ts'
import { createLog } from '../lib/log.ts'
import { createRegistry } from '../lib/metrics.ts'
import { apiClientOptions } from '../lib/net/api-access.ts'
import { openAuthority, openServerCertificate } from '../lib/net/authority.ts'
import { runUntilSignal, UsageError } from '../lib/net/lifetime.ts'
import { readOptions } from '../lib/net/options.ts'
import { refuseSecond, serveStatus } from '../lib/net/status-server.ts'
import { ensureMtuProbing } from '../lib/net/sysctl.ts'
import type { Replica } from '../lib/replicas.ts'
import { createApi } from './api/api-server.ts'
import { createKubeletClient, KUBELET_CLIENT, readServerCa } from './api/kubelet-client.ts'
import { tokenKeyOf } from './api/service-account-token.ts'
import { OPTIONS, type RelayConfig } from './config.ts'
import { createIssuer } from './issuer-server.ts'
import { runMaintenance } from './maintenance-loop.ts'
import { followNodeNames, openMembers } from './members-loop.ts'
import { runOpsServer } from './ops-server.ts'
import { ownCredentials } from './own-credentials.ts'
import { runReplicas } from './replicas-loop.ts'
import { ownReplica } from './replicas.ts'
import { runPacketServer } from './packet-server.ts'
import { runOpsSessions } from './session-server.ts'
import { runSignalServer } from './signal-server.ts'
import type { PairPolicy } from './signal.ts'
import { addRelayMetrics, advertised, relayStatus } from './status.ts'
import { runStunServer } from './stun-server.ts'
import { runTlsServer } from './tls-server.ts'
import { createTokenReviewer } from './token-review-client.ts'
import { udpPlaces } from './udp-relay.ts'
import { runUdpRelay } from './udp-relay-server.ts'

export async function main(argv: readonly string[], env: NodeJS.ProcessEnv): Promise<number> {
  const values = readOptions('fulmar relay --public HOST[,HOST…]', OPTIONS, argv, env)
  if (typeof values === 'number') return values
  await runUntilSignal((signal, beforeEnd) => run(values, signal, beforeEnd))
  return 0
}

/** Every node of the mesh may reach every other: certificates say who belongs to it. */
const mayReach: PairPolicy = () => true

async function run(
  config: RelayConfig,
  signal: AbortSignal,
  beforeEnd: (leave: () => Promise<void>) => void,
): Promise<void> {
  const { stateDir, manifests, replicas } = config
  const others = otherReplicas(config)
  const startedAt = Date.now()
  const log = createLog('relay', config.logLevel)
  const registry = createRegistry('relay')
  await refuseSecond(config.runDir, 'relay')

  const authority = await openAuthority(stateDir, startedAt)
  const certificate = await openServerCertificate(stateDir, authority, config.public, startedAt)
  const places = udpPlaces(config, dialable())
  const udpPorts = Object.keys(places).length === 0 ? undefined : config.udpRelayPorts
  if (udpPorts === undefined && config.udpRelayPorts !== undefined)
    log.warn('none of --stun and --public is an address of this host, so nothing is relayed over UDP')
  const draining = new AbortController()
  const beforeDrain = AbortSignal.any([signal, draining.signal])
  const signals = await runSignalServer(
    {
      stateDir,
      relay: hostname(),
      replicas,
      mayReach,
      ...(udpPorts !== undefined && {
        onUdpRequest: (from, to) => udpRelay?.request(from, to),
        onGreeted: (node) => udpRelay?.greet(node),
      }),
      log,
    },
    beforeDrain,
  )
  const udpRelay =
    udpPorts === undefined
      ? undefined
      : await runUdpRelay({ stateDir, places, ports: udpPorts, mayReach, tell: signals.tell, log }, signal)
  const packets = runPacketServer({ mayReach, log }, beforeDrain)
  const nodes = runReplicas(
    {
      ...{ others, authority, log },
      sessions: (onPresence) => runOpsSessions({ relay: hostname(), replicas, onPresence, log }, signal),
    },
    signal,
  )
  const { sessions } = nodes
  const kubelets = createKubeletClient({
    dial: nodes.dial,
    serverCa: readServerCa(config.kubeletCa) ?? authority.certificatePem,
    credentials: ownCredentials(authority, KUBELET_CLIENT, Date.now),
    log,
  })
  const tokenKey = tokenKeyOf(authority.keyPem)
  const api =
    manifests === undefined ? undefined : createApi({ directory: manifests, stateDir, kubelets, tokenKey, log })
  const apiClosed = api?.run(signal)
  // It may fail before it is awaited below, where the failure is handled.
  apiClosed?.catch(() => undefined)

  const { certificateLifeMs, renewalGraceMs } = config
  const kubernetes = config.server && createApiClient(apiClientOptions(String(config.server), NOBODY, config))
  if (config.serviceAccounts.length > 0 && kubernetes === undefined)
    throw new UsageError('--service-accounts: needs --server, whose API says whose a token is')
  const review =
    kubernetes && config.serviceAccounts.length > 0
      ? createTokenReviewer({ client: kubernetes, accounts: config.serviceAccounts, log })
      : undefined
  const followed = kubernetes && followNodeNames(kubernetes, log, signal)
  const source = followed ?? (api && { nodes: api.nodes, uidsCount: false })
  const membership =
    source && (await openMembers({ stateDir, source, longestMs: certificateLifeMs + renewalGraceMs, log }))
  const members = membership?.members
  const issuer = createIssuer({
    ...{ stateDir, authority, certificateLifeMs, renewalGraceMs },
    ...advertised(config),
    ...(members && { members }),
    ...(review && { review }),
    now: Date.now,
    log,
  })

  const ops = await runOpsServer(
    {
      ...{ config, certificate, sessions: nodes, log },
      authorityPem: authority.certificatePem,
      nodes: () => source?.nodes() ?? [],
    },
    signal,
  )
  const routes = {
    join: issuer.handle,
    signal: signals.sessions.upgrade,
    packets: packets.sessions.upgrade,
    ops: sessions.upgrade,
    replica: nodes.upgrade,
    connect: ops.connect,
    api: api === undefined ? answerWithoutApi : api.handle,
    ...(api !== undefined && { apiUpgrade: api.handleUpgrade }),
  }
  await ensureMtuProbing(log)
  const tls = await runTlsServer(
    {
      ...{ listen: config.listen, certificate, authorityPem: authority.certificatePem, routes, log },
      ...(members && { refusal: (...of) => members.refusal(...of) }),
    },
    signal,
  )
  const deleted = (node: string): void => {
    tls.endNode(node)
    signals.forget(node)
    udpRelay?.endNode(node)
  }
  const stun =
    config.stun.length === 0
      ? undefined
      : await runStunServer({ addresses: config.stun, ports: config.stunPorts, log }, signal)

  const parts = { startedAt, config, signals, packets, sessions, replicas: nodes.list, stun, udpRelay, api }
  const updateMetrics = addRelayMetrics(registry, parts)
  const socket = join(config.runDir, 'relay.sock')
  const metrics = { host: config.metrics.address, port: config.metrics.port }
  const status = () => relayStatus(parts)
  await serveStatus({ socket, metrics, registry, status, healthy: () => !beforeDrain.aborted, log }, signal)
  if (others.length > 0)
    beforeEnd(() => {
      draining.abort()
      return nodes.drain(config.drainSeconds * 1000)
    })
  const maintenance = {
    stateDir,
    authority,
    names: config.public,
    certificate,
    onCertificate: (pair: KeyPair) => {
      tls.setCertificate(pair)
      ops.setCertificate(pair)
    },
    updateMetrics,
    log,
  }
  await Promise.all([
    tls.closed,
    signals.closed,
    packets.closed,
    nodes.closed,
    ops.closed,
    stun?.closed,
    udpRelay?.closed,
    apiClosed,
    membership?.run(deleted, signal),
    followed?.done,
    runMaintenance(maintenance, signal),
  ])
}

/** @throws UsageError where this relay is not one of --replicas. */
function otherReplicas({ replicas, public: hosts, listen }: RelayConfig): readonly Replica[] {
  if (replicas.length === 0) return []
  try {
    const own = ownReplica(replicas, hosts, listen[0]!.port)
    return replicas.filter((replica) => replica !== own)
  } catch (cause) {
    throw new UsageError(`--replicas: ${(cause as Error).message}`, { cause })
  }
}

/** To a Kubernetes API the relay shows no certificate. */
const NOBODY = { certificatePem: '', keyPem: '', caPem: '' }

/** Addresses of this host that others may reach. */
const dialable = (): readonly string[] =>
  Object.values(networkInterfaces()).flatMap((infos = []) =>
    infos.filter(({ internal }) => !internal).map(({ address }) => address),
  )

function answerWithoutApi(_request: IncomingMessage, response: ServerResponse): void {
  response.writeHead(404, { 'content-type': 'text/plain' })
  response.end('this relay serves no Kubernetes API; --manifests DIR switches it on\n')
}
