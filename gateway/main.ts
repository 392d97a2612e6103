// The gateway joins its pool to the others: one per pool is active, the rest stand by.

import { networkInterfaces } from 'node:os'
import { join } from 'node:path'
import { formatSocketAddress, parseSocketAddress } from '../lib/address.ts'
import { contains, familyOf, parseCidr } from '../lib/cidr.ts'
import { describeOptions, parseOptions } from '../lib/config.ts'
import { createApiClient } from '../lib/k8s/api-client.ts'
import { NODE_POOLS, NODES, RAVEN_GATEWAYS } from '../lib/k8s/objects.ts'
import { poolsOf } from '../lib/k8s/pools.ts'
import { runStore } from '../lib/k8s/store-loop.ts'
import type { StoreView } from '../lib/k8s/store.ts'
import { createLog } from '../lib/log.ts'
import { createRegistry } from '../lib/metrics.ts'
import { loadIdentity } from '../lib/net/identity.ts'
import { aborted, pause, runUntilSignal, UsageError } from '../lib/net/lifetime.ts'
import { createUpkeep } from '../lib/net/upkeep.ts'
import { serveStatus } from '../lib/net/status-server.ts'
import { linkLocalOf, ulaOf } from './addresses.ts'
import { openAnnouncements } from './announcements-loop.ts'
import { runCandidates } from './candidates-loop.ts'
import { gatewayOptions, type GatewayConfig } from './config.ts'
import { openEchoServer } from './echo-server.ts'
import { runMesh, type Mesh } from './mesh-loop.ts'
import { registerMetrics } from './metrics.ts'
import { openPacketClient } from './packet-client.ts'
import { runPaths } from './path-loop.ts'
import { cidrsOf } from './peers.ts'
import { openProbeSocket } from './probe-client.ts'
import { publicKeyOf } from './probe.ts'
import { runPortSharing } from './port-sharing-loop.ts'
import { openRoutes } from './routes-loop.ts'
import { openSignalClient } from './signal-client.ts'
import { loadState } from './state-loop.ts'
import { gatewayStatus } from './status.ts'
import { createBinder } from './stun-client.ts'
import { openWireGuard } from './wireguard-loop.ts'

/**
 * Put on the devices of a node that has no address in its podCIDR: the kernel takes a device without any IPv4 address
 * for one with strict rp_filter, and drops what arrives while two sides use different rungs.
 */
const NO_ADDRESS = '169.254.20.54'

export async function main(argv: readonly string[], env: Readonly<Record<string, string | undefined>>): Promise<number> {
  const parsed = parseOptions(gatewayOptions, argv, env)
  switch (parsed.kind) {
    case 'help':
      process.stdout.write(`fulmar gateway: joins this node's pool to the others\n\n${describeOptions(gatewayOptions)}\n`)
      return 0
    case 'invalid':
      throw new UsageError(parsed.errors.join('\n'))
    case 'ok':
      await runUntilSignal((signal) => runGateway(parsed.values, signal))
      return 0
  }
}

async function runGateway(config: GatewayConfig, signal: AbortSignal): Promise<void> {
  const startedAt = Date.now()
  const log = createLog('gateway', config.logLevel)
  const identity = withFlags(await loadIdentity(config.stateDir), config)
  const { node } = identity
  const state = await loadState(config.stateDir, log, signal)
  const publicKey = publicKeyOf(state.privateKey)

  // What the cluster knows: from disk at once, from the API as it comes.
  const store = await runStore(
    {
      resources: [NODES, NODE_POOLS, RAVEN_GATEWAYS],
      client: createApiClient({
        server: identity.server,
        ca: identity.caPem,
        cert: identity.certificatePem,
        key: identity.keyPem,
      }),
      file: join(config.stateDir, 'gateway', 'store.db'),
      log,
      onChange: () => mesh?.trigger(),
    },
    signal,
  )
  const pools = () => poolsOf(store.list(NODES), store.list(NODE_POOLS), store.list(RAVEN_GATEWAYS))
  const announcements = openAnnouncements(identity, state, log)
  let mesh: Mesh | undefined

  // The relay: control frames, and WireGuard packets while there is no better way.
  const signalling = openSignalClient(
    {
      identity,
      log,
      onOpen: () => {
        const own = announcements.own()
        if (own !== undefined) signalling.send({ kind: 'announce', node, announcement: own })
        for (const peer of mesh?.plan()?.peers ?? []) signalling.send({ kind: 'ready', node: peer.node, reply: false })
      },
      onFrame: (frame) => {
        switch (frame.kind) {
          case 'announce':
            if (announcements.receive(frame.node, frame.announcement)) mesh?.trigger()
            return
          case 'ready':
            if (!mesh?.plan()?.peers.some((peer) => peer.node === frame.node)) return
            paths.ready(frame.node)
            if (!frame.reply) signalling.send({ kind: 'ready', node: frame.node, reply: true })
            return
          case 'call':
            return paths.called(frame.node)
          case 'hello':
          case 'welcome':
          case 'report':
          case 'gone':
            return
        }
      },
      onChange: () => {},
    },
    signal,
  )
  const packets = openPacketClient(
    {
      identity,
      wireguardPort: state.ports.relayTcp,
      log,
      onChange: () => paths.setRelayOpen(packets.state().state === 'connected'),
    },
    signal,
  )

  // Paths: probes on WireGuard's port, echoes inside its devices, and what they decide.
  const paths = runPaths(
    {
      privateKey: state.privateKey,
      publicKey,
      probes: () => probes,
      echoes: () => echoes,
      effects: {
        setEndpoint: async (peer, to) => mesh?.setEndpoint(peer, to),
        move: (peer, rung) => mesh?.move(peer, rung),
        call: (peer) => void signalling.send({ kind: 'call', node: peer.node, epoch: 0, startInMs: 0 }),
      },
      log,
    },
    signal,
  )
  const binder = createBinder((datagram, to) => probes.send(datagram, to), signal)
  const [probes, echoes] = await Promise.all([
    openProbeSocket(
      {
        port: state.ports.probe,
        log,
        onMessage: (message, datagram, from) => {
          if (!binder.onDatagram(message, datagram, from)) paths.onStun(message, datagram, from)
        },
      },
      signal,
    ),
    openEchoServer({ onRequest: paths.onEchoRequest, onReply: paths.onEchoReply }, signal),
    runPortSharing({ wireguardPort: state.ports.direct, probePort: state.ports.probe }, log, signal),
  ])
  // The kernel: devices and routes, adopted from a predecessor where they are.
  const source = await ownAddresses(store, node, config.sourceAddress, signal)
  if (signal.aborted) return
  const [wireguard, routes] = await Promise.all([
    openWireGuard(
      {
        privateKeyFile: state.privateKeyFile,
        devices: [
          { rung: 'direct', port: state.ports.direct },
          { rung: 'relay-tcp', port: state.ports.relayTcp },
        ],
        addresses: { linkLocal: linkLocalOf(node), ula: ulaOf(node), ...source, ipv4: source.ipv4 ?? NO_ADDRESS },
        log,
      },
      signal,
    ),
    openRoutes({ source4: source.ipv4, source6: source.ipv6, log }, signal),
  ])
  mesh = await runMesh(
    {
      node,
      pools: () => pools().pools,
      announcements: announcements.peers,
      wireguard,
      routes,
      packets,
      paths: () => paths,
      onConfigured: (peer) => void signalling.send({ kind: 'ready', node: peer.node, reply: false }),
      log,
    },
    signal,
  )
  mesh.trigger()

  // Our own announcement, whenever an address or the NAT's behaviour changes.
  const announce = createUpkeep(
    {
      pass: async () => {
        if (!(await announcements.setOwn(publicKey, reachability.candidates(), reachability.nat()))) return
        signalling.send({ kind: 'announce', node, announcement: announcements.own()! })
      },
      onError: (err) => log.error({ err }, 'our announcement could not be made'),
      onEnd: () => {},
    },
    signal,
  )
  const reachability = runCandidates(
    {
      port: state.ports.direct,
      stun: identity.stun.map(parseSocketAddress).filter((server) => server !== undefined),
      binder,
      meshPrefixes: () => pools().pools.flatMap(cidrsOf),
      onChange: announce.trigger,
    },
    signal,
  )

  // For people and for Prometheus.
  const status = () =>
    gatewayStatus({ node, startedAt, publicKey, port: state.ports.direct, mesh: mesh!, wireguard, signalling, paths, nat: reachability.nat(), pools: pools(), store })
  const registry = createRegistry('gateway')
  registerMetrics(registry, { status, packets, probes })
  await serveStatus(
    { socket: join(config.runDir, 'gateway.sock'), metrics: { host: config.metrics.address, port: config.metrics.port }, registry, status, healthy: () => mesh!.plan() !== undefined, log },
    signal,
  )
  log.info({ node, port: state.ports.direct, afterMs: Math.round(performance.now()), cpuMs: Math.round(process.cpuUsage().user / 1000) }, 'gateway runs')
  await aborted(signal)
  await Promise.all([signalling.closed, packets.closed, store.done])
}

/** Flags win over what `fulmar join` wrote. */
function withFlags<T extends { relays: readonly string[]; stun: readonly string[]; server: string }>(identity: T, config: GatewayConfig): T {
  return {
    ...identity,
    ...(config.relays.length > 0 ? { relays: config.relays.map(String) } : {}),
    ...(config.stun.length > 0 ? { stun: config.stun.map(formatSocketAddress) } : {}),
    ...(config.server === undefined ? {} : { server: String(config.server) }),
  }
}

/** This node's addresses in its own podCIDRs, once the cluster (or the disk) knows the node. */
async function ownAddresses(store: StoreView, node: string, configured: string | undefined, signal: AbortSignal): Promise<{ ipv4?: string; ipv6?: string }> {
  const prefixes = (): readonly string[] | undefined => {
    const object = store.list(NODES).find(({ metadata }) => metadata?.name === node)
    return object && (object.spec?.podCIDRs ?? [object.spec?.podCIDR ?? []].flat())
  }
  while (prefixes() === undefined && !signal.aborted) await pause(20, signal)
  const local = Object.values(networkInterfaces()).flatMap((infos) => infos ?? []).map(({ address }) => address)
  const cidrs = (prefixes() ?? []).map(parseCidr).filter((cidr) => cidr !== undefined)
  const inside = (family: 4 | 6) => local.find((address) => familyOf(address) === family && cidrs.some((cidr) => contains(cidr, address)))
  const [ipv4, ipv6] = [configured ?? inside(4), inside(6)]
  return { ...(ipv4 === undefined ? {} : { ipv4 }), ...(ipv6 === undefined ? {} : { ipv6 }) }
}
