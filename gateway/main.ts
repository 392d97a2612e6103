// The gateway joins its pool to the others: one per pool is active, the rest stand by.
//
//   LAN ─ election ─ our role ─▶ other pools (announcement, echoes), agents (heartbeats)
//   store ─ pools ─┐                                     ┌─ WireGuard devices, one per rung
//   relay ─ announcements ─▶ peers ─▶ mesh ──────────────┼─ routes, one nexthop per pool
//   probes, echoes ─▶ paths ─▶ which rung carries a pool ┘

import { join } from 'node:path'
import { numbersOf } from '../lib/common-options.ts'
import { parseSocketAddress } from '../lib/address.ts'
import { poolOf } from '../lib/lan.ts'
import { createLog } from '../lib/log.ts'
import { createRegistry } from '../lib/metrics.ts'
import { podJoinOf } from '../lib/net/enrolment.ts'
import { followIdentity } from '../lib/net/identity-loop.ts'
import { aborted, runUntilSignal } from '../lib/net/lifetime.ts'
import { readOptions } from '../lib/net/options.ts'
import { openRelayList } from '../lib/net/relay-list.ts'
import { isAlive, refuseSecond, serveStatus } from '../lib/net/status-server.ts'
import type { Carrier } from '../lib/owned.ts'
import { RUNGS } from '../lib/status.ts'
import { awaitAgents } from './agents-loop.ts'
import { runAnnouncements } from './announcements-loop.ts'
import { runCandidates } from './candidates-loop.ts'
import { gatewayOptions, withFlags, type GatewayConfig } from './config.ts'
import { openEchoServer } from './echo-server.ts'
import { openGatewayLan, type GatewayLan } from './lan-loop.ts'
import { openListenPort, type ListenPort } from './listen-port-loop.ts'
import { runHandover, type Handover } from './handover-loop.ts'
import { runMesh, type Mesh } from './mesh-loop.ts'
import { registerMetrics, registerMoves } from './metrics.ts'
import { findOwnAddresses } from './own-address-loop.ts'
import { pathEffects } from './path-effects.ts'
import { runPaths } from './path-loop.ts'
import { listenPortOf } from './peers.ts'
import { followPools } from './pools-loop.ts'
import { gatewayPorts } from './port-sharing.ts'
import { runPortSharing } from './port-sharing-loop.ts'
import { openProbeSocket } from './probe-client.ts'
import { publicKeyOf } from './probe.ts'
import { openRelays } from './relays-loop.ts'
import { createRoleKeeper } from './role-loop.ts'
import { openRoutes } from './routes-loop.ts'
import { loadState } from './state-loop.ts'
import { gatewayStatus, pathsStatus } from './status.ts'
import { createStunClient } from './stun-client.ts'
import { runTraffic } from './traffic-loop.ts'
import { openWireGuard } from './wireguard-loop.ts'

export async function main(argv: readonly string[], env: NodeJS.ProcessEnv): Promise<number> {
  const config = readOptions('fulmar gateway [--flag VALUE]…', gatewayOptions, argv, env)
  if (typeof config === 'number') return config
  await runUntilSignal((signal, beforeEnd) => runGateway(config, signal, beforeEnd))
  return 0
}

async function runGateway(
  config: GatewayConfig,
  signal: AbortSignal,
  beforeEnd: (leave: () => Promise<void>) => void,
): Promise<void> {
  const startedAt = Date.now()
  const log = createLog('gateway', config.logLevel)
  const numbers = numbersOf(config)
  const registry = createRegistry('gateway')
  await refuseSecond(config.runDir, 'gateway')
  const moved = registerMoves(registry)
  const identity = await followIdentity(
    {
      stateDir: config.stateDir,
      daemon: 'gateway',
      join: podJoinOf(config),
      withFlags: (joined) => withFlags(joined, config),
      log,
    },
    signal,
  )
  const { node } = identity
  const state = await loadState(config.stateDir, log, signal)
  const { ports, privateKey } = state
  const publicKey = publicKeyOf(privateKey)
  const relayList = await openRelayList({
    configured: config.relays,
    joined: identity.relays,
    file: join(config.stateDir, 'gateway', 'relays.json'),
    log,
  })
  const roles = createRoleKeeper(signal)
  // What the loops below tell each other of comes after some of them.
  let lookAtNodes = (): void => undefined
  let mesh = undefined as Mesh | undefined
  let listening = undefined as ListenPort | undefined
  let lan = undefined as GatewayLan | undefined
  let handover = undefined as Handover | undefined

  const pools = await followPools(
    {
      identity,
      access: config,
      stateDir: config.stateDir,
      sessions: () => relays.addresses(),
      onChange: () => {
        lookAtNodes()
        mesh?.trigger()
        listening?.trigger()
      },
      log,
    },
    signal,
  )
  const announcements = runAnnouncements(
    {
      identity,
      state,
      facts: () => ({
        wireguardKey: publicKey,
        candidates: reachability.candidates(),
        nat: reachability.nat(),
        role: roles.own(),
      }),
      nodes: pools.nodes,
      clock: identity.clock,
      peerGraceMs: config.peerGraceMs,
      onDropped: () => mesh?.trigger(),
      onLate: (peer) => onAnnouncement(peer),
      onOwn: (announcement) => void relays.signalling.send({ kind: 'announce', node, announcement }),
      log,
    },
    signal,
  )
  identity.onChange(announcements.trigger)
  lookAtNodes = announcements.look
  lookAtNodes()
  for (const [peer, said] of announcements.peers) roles.learn(peer, said.role, said.certifiedMs)
  const onAnnouncement = (peer: string): void => {
    const said = announcements.peers.get(peer)!
    roles.learn(peer, said.role, said.certifiedMs)
    mesh?.trigger()
    relays.readiness.announced(peer, paths.isAwake(peer))
  }

  const relays = openRelays(
    {
      identity,
      relays: relayList,
      ports,
      publicKey,
      announcements,
      onAnnouncement,
      mesh: () => mesh,
      paths: () => paths,
      log,
    },
    signal,
  )

  // Paths: probes on WireGuard's port, echoes inside its devices, and what they decide.
  const paths = runPaths(
    {
      privateKey,
      publicKey,
      probes: () => probes,
      echoes: () => echoes,
      isInside: pools.isInside,
      effects: pathEffects({ mesh: () => mesh, reachability: () => reachability, relays, roles, moved }),
      nat: () => reachability.nat(),
      coldAfterMs: config.coldAfterMs,
      isWarm: (pool) => config.warm.includes(pool) || config.warm.includes('all'),
      log,
    },
    signal,
  )
  const stunClient = createStunClient((datagram, to) => probes.send(datagram, to), signal)
  const { direct, ...others } = ports
  listening = await openListenPort(
    {
      own: direct,
      taken: Object.values(others),
      declared: () => listenPortOf(pools.list(), node),
      onChange: announcements.trigger,
      log,
    },
    signal,
  )
  const [probes, echoes, sharing] = await Promise.all([
    openProbeSocket(
      {
        port: ports.probe,
        onMessage: (message, datagram, from) => {
          if (!stunClient.onMessage(message, from)) paths.onStun(message, datagram, from)
        },
      },
      signal,
    ),
    openEchoServer(
      {
        onRequest: paths.onEchoRequest,
        onReply: paths.onEchoReply,
        onRole: paths.onEchoRole,
        onOther: (device, from, datagram) => {
          if (lan?.neighbours.onMessage(from, datagram) !== true) handover?.onMessage(device, from, datagram)
        },
        role: roles.own,
      },
      signal,
    ),
    runPortSharing(gatewayPorts(ports, listening.current()), log, signal),
  ])

  const reachability = runCandidates(
    {
      port: listening.current,
      mappingNonce: state.mappingNonce,
      stun: identity.stun.map(parseSocketAddress).filter((address) => address !== undefined),
      stunClient,
      isInside: pools.isInside,
      onChange: announcements.trigger,
      log,
    },
    signal,
  )

  // The kernel: devices and routes, adopted from a predecessor where they are.
  const own = await findOwnAddresses(pools.store, node, config.sourceAddress, signal)
  if (signal.aborted) return
  const openDevices = <C extends Carrier>(
    signal: AbortSignal,
    ...devices: readonly { readonly rung: C; readonly port: number }[]
  ) =>
    openWireGuard(
      { privateKeyFile: state.privateKeyFile, devices, addresses: own.onDevices, mark: numbers.mark, log },
      signal,
    )
  const [wireguard, routes] = await Promise.all([
    openDevices(signal, { rung: 'direct', port: listening.current() }, { rung: 'relay-tcp', port: ports.relayTcp }),
    openRoutes({ source4: own.source4, source6: own.source6, numbers, log }, signal),
  ])
  mesh = runMesh(
    {
      node,
      pools: () => {
        const known = pools.list()
        lan?.elections.setPool(poolOf(known, node))
        return known
      },
      announcements: announcements.peers,
      roles: roles.view,
      wireguard,
      wireguardUdp: relays.udp.device,
      routes,
      packets: relays.packets,
      paths: () => paths,
      onConfigured: ({ node }) => relays.readiness.configured(node, paths.isAwake(node)),
      log,
    },
    signal,
  )

  const hasOwnAgent = () => isAlive(join(config.runDir, 'agent.sock'))
  // The pool's LAN: who of its gateways is active, which nodes are alive, and the role handed over.
  const { elections, neighbours } = openGatewayLan(
    {
      identity,
      port: config.lanPort,
      state,
      roles,
      pools: pools.list,
      mesh,
      paths: paths.findings,
      echoes,
      tellRole: () => {
        paths.tellRole()
        announcements.trigger()
      },
      isOverruled: routes.isOverruled,
      overrule: async () => {
        if (!(await hasOwnAgent())) await routes.overrule()
      },
      log,
    },
    signal,
  )
  lan = { elections, neighbours }
  const openDevice = (port: number, signal: AbortSignal) => openDevices(signal, { rung: 'leave', port })
  const following = runHandover({ mesh, openDevice, send: echoes.sendOther, wake: paths.traffic, roles, log }, signal)
  handover = following
  const agents = {
    node,
    pool: elections.pool,
    isActive: () => roles.own()?.active === true,
    successor: () => elections.standbys()[0],
    hasAgent: (name: string) => (name === node ? hasOwnAgent() : neighbours.hasAgent(name)),
    log,
  }
  beforeEnd(async () => {
    await awaitAgents(agents, signal)
    await elections.leave(following.prepare)
  })

  mesh.trigger()
  listening.start(async (port) => {
    await wireguard.setPort('direct', port)
    sharing.setPorts(gatewayPorts(ports, port))
  })
  const traffic = runTraffic(
    {
      coldAfterMs: config.coldAfterMs,
      awake: paths.awake,
      rungs: () => RUNGS.filter((rung) => rung !== 'relay-udp' || relays.udp.device() !== undefined),
      echoBytes: echoes.carried,
      onTraffic: paths.traffic,
      log,
    },
    signal,
  )
  relays.udp.start((signal) => openDevices(signal, { rung: 'relay-udp', port: ports.relayUdp }), mesh)

  // For people and for Prometheus.
  const parts = {
    node,
    startedAt,
    publicKey,
    listening,
    mesh,
    elections,
    wireguard,
    signalling: relays.signalling,
    paths,
    reachability,
    pools,
    neighbours,
  }
  registerMetrics(registry, { paths: () => pathsStatus(parts), ...relays, probes })
  const { address: host, port } = config.metrics
  const healthy = () => parts.mesh.plan() !== undefined
  const status = () => gatewayStatus(parts, Date.now())
  await serveStatus(
    { socket: join(config.runDir, 'gateway.sock'), metrics: { host, port }, registry, status, healthy, log },
    signal,
  )
  log.info({ node, port: listening.current(), afterMs: Math.round(performance.now()) }, 'gateway runs')

  await aborted(signal)
  await Promise.all([relays.closed, pools.done, traffic, identity.done])
}
