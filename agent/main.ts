// The agent of a node: names, services and routes from one store that starts from disk and follows the cloud.

import { join } from 'node:path'
import { cgroupMount } from '../lib/bpf/hook-point.ts'
import { createApiClient } from '../lib/k8s/api-client.ts'
import { numbersOf } from '../lib/common-options.ts'
import type { Pool } from '../lib/k8s/pools.ts'
import { runStore } from '../lib/k8s/store-loop.ts'
import { poolOf } from '../lib/lan.ts'
import { createLog } from '../lib/log.ts'
import { createRegistry } from '../lib/metrics.ts'
import { apiClientOptions } from '../lib/net/api-access.ts'
import { countBoot } from '../lib/net/boot.ts'
import { podJoinOf } from '../lib/net/enrolment.ts'
import { followIdentity } from '../lib/net/identity-loop.ts'
import { aborted, runUntilSignal, UsageError } from '../lib/net/lifetime.ts'
import { spareMemory } from '../lib/net/memory.ts'
import { openNftMonitor } from '../lib/net/nft-monitor.ts'
import { ensureOwnAddress } from '../lib/net/own-address.ts'
import { probe } from '../lib/net/preflight.ts'
import { readOptions } from '../lib/net/options.ts'
import { openRelayList } from '../lib/net/relay-list.ts'
import { followOutside } from '../lib/net/outside.ts'
import { refuseSecond, serveStatus } from '../lib/net/status-server.ts'
import { missing, report, requirementsOf } from '../lib/preflight.ts'
import { NO_BALANCE } from './balance.ts'
import { agentOptions, type AgentConfig } from './config.ts'
import { runDnsServer } from './dns-server.ts'
import { runHealth } from './health-loop.ts'
import { serveHealthNodePorts } from './health-node-port-server.ts'
import { openUpstream } from './dns-upstream-client.ts'
import { openAgentLan } from './lan-loop.ts'
import { registerMetrics } from './metrics.ts'
import { openOpsClient } from './ops-client.ts'
import { dialTarget } from './ops-dial-client.ts'
import { runNft } from './nft-loop.ts'
import { followPods } from './pods-loop.ts'
import { watchProxies } from './proxies-loop.ts'
import { routeRulesOf } from './route-rules.ts'
import { runRouteRules } from './route-rules-loop.ts'
import { runRoutes } from './routes-loop.ts'
import { createSnapshots, KEPT, RESOURCES } from './snapshot.ts'
import { runSocketLb } from './socket-lb-loop.ts'
import { agentStatus } from './status.ts'
import { takeoversOf } from './takeover.ts'

export async function main(argv: readonly string[], env: NodeJS.ProcessEnv): Promise<number> {
  const config = readOptions('fulmar agent [--flag VALUE]…', agentOptions, argv, env)
  if (typeof config === 'number') return config
  await runUntilSignal((signal) => runAgent(config, signal))
  return 0
}

async function runAgent(config: AgentConfig, signal: AbortSignal): Promise<void> {
  const startedAt = Date.now()
  const log = createLog('agent', config.logLevel)
  await refuseSecond(config.runDir, 'agent')
  const lacks = missing(await probe(requirementsOf('agent')))
  if (lacks.length > 0) throw new UsageError(`fulmar agent cannot run on this machine:\n${report(lacks)}`)
  const identity = await followIdentity(
    { stateDir: config.stateDir, daemon: 'agent', join: podJoinOf(config, config.node), log },
    signal,
  )
  const node = config.node ?? identity.node
  const server = String(config.server ?? identity.server)

  let onChange = (_what?: 'objects'): void => undefined

  const memory = spareMemory(signal)

  // What the cluster knows: from disk at once, from the API as it comes.
  const client = createApiClient(apiClientOptions(server, identity, config))
  const store = await runStore(
    {
      resources: RESOURCES,
      kept: KEPT,
      client,
      file: join(config.stateDir, 'agent', 'store.db'),
      log,
      onChange: () => onChange('objects'),
      onListed: memory.releaseSoon,
    },
    signal,
  )
  const snapshot = createSnapshots(store, {
    node,
    zone: { domains: config.clusterDomains, servers: config.dnsAddresses, pods: config.dnsPods },
    selection: config.services,
    health: () => health.health(),
    paths: () => health.paths(),
  })

  // What the pool knows without the cloud: which gateway is active, what is silent.
  const lan = openAgentLan(
    {
      identity,
      node,
      boot: await countBoot(join(config.stateDir, 'agent', 'boot'), log),
      lanPort: config.lanPort,
      pool: () => poolOf(snapshot().cluster?.pools ?? [], node),
      own: () => health.findings(),
      onChange: () => onChange(),
      onFindings: () => health.trigger(),
      log,
    },
    signal,
  )
  const health = runHealth(
    { node, cluster: () => snapshot().cluster, told: lan.findings, onChange: () => onChange('objects'), log },
    signal,
  )

  // What else serves services on this node: beside most of it ours comes first, to some it is left.
  const proxies = await watchProxies({ group: config.cgroup, onChange: () => onChange(), log }, signal)
  const leftTo = () => (config.servicePath === 'auto' ? proxies.here().replacement : undefined)
  const serves = () => config.servicePath !== 'none' && leftTo() === undefined
  const balance = () => (serves() ? snapshot().balance : NO_BALANCE)

  // For people and for Prometheus.
  const registry = createRegistry('agent')
  const metrics = registerMetrics(registry, {
    snapshot,
    dns: () => ({ ...dns.counts(), dropped: dns.dropped() }),
    upstream: () => upstream.counts(),
    checks: () => health.counts(),
  })

  // Names.
  const clusterDns = () =>
    takeoversOf(snapshot().cluster, config.clusterDnsService, config.dnsAddresses).map(({ clusterIp }) => clusterIp)
  const upstream = openUpstream(
    {
      servers: config.dnsUpstream,
      stubs: config.dnsStubs,
      staleSeconds: config.dnsStaleSeconds,
      except: () => [...config.dnsAddresses, ...clusterDns()],
    },
    signal,
  )
  const dns = runDnsServer(
    {
      addresses: config.dnsAddresses,
      port: config.dnsPort,
      ensureAddress: ensureOwnAddress,
      zone: () => snapshot().zone,
      upstream,
      onListening: () => nft.retake(),
      log,
    },
    signal,
  )
  const takeovers = () =>
    config.dnsPort === 53 ? takeoversOf(snapshot().cluster, config.clusterDnsService, dns.listening()) : []

  // Services.
  const monitor = openNftMonitor(log, signal)
  let synced = false
  const nft = runNft(
    {
      snapshot: () => {
        const { cluster, here } = snapshot()
        const served = balance()
        return cluster && served && { cluster, here, balance: served }
      },
      nodePortAddresses: config.nodePortAddresses,
      serviceCidrs: () => (serves() ? config.serviceCidrs : []),
      takeovers,
      onSync: (sync) => {
        metrics.onSync(sync)
        // The first one is of all services.
        if (!synced) void store.settled().then(memory.releaseSoon)
        synced = true
        healthNodePorts.trigger()
      },
      monitor,
      log,
    },
    signal,
  )
  const healthNodePorts = serveHealthNodePorts(
    {
      checks: () => balance()?.healthChecks ?? [],
      addresses: nft.nodeAddresses,
      healthy: nft.loaded,
      answered: () => proxies.here().names.length > 0,
      log,
    },
    signal,
  )

  // TCP calls of this node's own processes, over it; but for pods that something else intercepts.
  const pods =
    config.servicePath === 'nft' || config.servicePath === 'none'
      ? undefined
      : followPods(
          {
            client,
            node,
            cgroups: () => config.cgroup ?? cgroupMount(),
            file: join(config.stateDir, 'agent', 'pods-left-alone'),
            log,
          },
          signal,
        )
  const socketLb = runSocketLb(
    {
      mode: config.servicePath,
      leftTo,
      group: config.cgroup,
      folder: config.bpfDir,
      services: () => balance()?.services,
      nodeAddresses: nft.nodeAddresses,
      except: () => (config.dnsPort === 53 ? clusterDns() : []),
      excludedGroups: () => [...config.cgroupsExcept, ...(pods?.groups() ?? [])],
      log,
    },
    signal,
  )

  // The cloud's way to the kubelet of this node.
  const policy = { node, kubeletPort: config.kubeletPort, targets: config.opsTargets }
  const relays = await openRelayList({
    configured: config.relays,
    joined: identity.relays,
    file: join(config.stateDir, 'agent', 'relays.json'),
    log,
  })
  const ops = config.ops
    ? openOpsClient(
        {
          identity,
          relays,
          dial: (host, port) => dialTarget(policy, host, port),
          log,
        },
        signal,
      )
    : undefined

  // Routes to the pods of neighbours and, through the gateway, of other pools.
  const onMoved = (): void => {
    ops?.check()
    onChange()
  }
  const outside = followOutside({ identity: { ...identity, node, server }, onChange: onMoved }, signal)
  const { vxlanPort, vxlanId, overlayPods: podsInPool } = config
  const routes = await runRoutes({ overlay: { port: vxlanPort, id: vxlanId }, numbers: numbersOf(config), log }, signal)
  const rules = runRouteRules(
    { rules: () => routes.known && routeRulesOf(node, routes.known, routes.overlays, vxlanPort), monitor, log },
    signal,
  )
  let routed: readonly Pool[] | undefined
  onChange = (what) => {
    health.trigger()
    nft.trigger()
    socketLb.trigger()
    const { cluster } = snapshot()
    if (cluster === undefined || !lan.settled()) return
    // Endpoints change all the time, which is no concern of routes.
    if (what === 'objects' && cluster.pools === routed) return
    routed = cluster.pools
    routes
      .update({ node, pools: outside.routable(cluster.pools).pools, active: lan.heard(), podsInPool })
      .finally(rules.trigger)
      .catch((err: Error) => log.error({ err }, 'cannot set routes; they are tried again'))
  }
  onChange()

  const status = () =>
    agentStatus({
      node,
      startedAt,
      snapshot: snapshot(),
      store,
      ops: ops?.state(),
      dns,
      nft,
      socketLb,
      beside: proxies.here().names,
      takeovers: takeovers(),
      routes: routes.plan,
      rules: [...rules.problems(), ...healthNodePorts.problems()],
      lan: [...lan.problems(), ...health.problems()],
      unroutable: outside.routable(snapshot().cluster?.pools ?? []).problems,
    })
  await serveStatus(
    {
      socket: join(config.runDir, 'agent.sock'),
      metrics: { host: config.metrics.address, port: config.metrics.port },
      registry,
      status,
      healthy: nft.loaded,
      log,
    },
    signal,
  )
  log.info({ node, services: snapshot().cluster?.services.length }, 'agent runs')
  await aborted(signal)
  await Promise.all([
    nft.done,
    socketLb.done,
    rules.done,
    dns.done,
    store.done,
    outside.done,
    identity.done,
    proxies.done,
    pods?.done,
    health.done,
    ops?.closed,
  ])
}
