// A gateway in memory: the product's announcements, peers, mesh and paths, composed as gateway/main.ts composes them,
// over a kernel, sockets and a relay of this process. What a real one keeps on disk and in the kernel outlives a restart.

import type { Node } from '../../lib/k8s/objects.ts'
import { createClock } from '../../lib/clock.ts'
import { createLog } from '../../lib/log.ts'
import { RUNGS, type PathStatus } from '../../lib/status.ts'
import { decodeSignal, encodeSignal, type SignalFrame, type SignedAnnouncement } from '../../lib/wire/signal.ts'
import type { Announcement } from '../../gateway/announcement.ts'
import { runAnnouncements, type Announcements } from '../../gateway/announcements-loop.ts'
import { ownCandidates } from '../../gateway/candidates.ts'
import { encodeEcho } from '../../gateway/echo.ts'
import { runMesh, type Mesh } from '../../gateway/mesh-loop.ts'
import { runPaths, type Paths } from '../../gateway/path-loop.ts'
import type { Peer } from '../../gateway/peers.ts'
import { PoolView } from '../../gateway/pools.ts'
import { Readiness } from '../../gateway/readiness.ts'
import { Roles } from '../../gateway/roles.ts'
import { Kernel } from './kernel.ts'
import { ROLE, type Site } from './site.ts'
import { memoryPackets, Tunnels, type TunnelSurroundings } from './tunnels.ts'

/** What is around a gateway. */
export type Surroundings = TunnelSurroundings & {
  readonly nodes: () => readonly Node[]
}

export type GatewayWork = {
  /** Peers that were made anew for a pass, by node. */
  readonly peers: Set<string>
  passes: number
}

const COLD_AFTER_MS = 60_000

/** As gateway/signal-client.ts says it. */
export const helloOf = (known: string): SignalFrame => ({
  kind: 'hello',
  version: 1,
  role: 'gateway',
  ...(known !== '' && { known }),
})

export class SimGateway {
  readonly site: Site
  readonly kernel = new Kernel()
  readonly tunnels: Tunnels
  readonly publicKey: string
  work: GatewayWork = newWork()
  readonly #world: Surroundings
  /** As on disk. */
  readonly #kept = new Map<string, SignedAnnouncement>()
  #sequence = 0
  #process: Process | undefined
  #facts: Pick<Announcement, 'candidates' | 'nat'>

  constructor(site: Site, world: Surroundings) {
    this.site = site
    this.#world = world
    this.publicKey = site.publicKey
    this.tunnels = new Tunnels(site, world, this.kernel, {
      peers: () => this.peers,
      paths: () => this.#process?.paths,
    })
    world.internet.attach(site.inside.address, site.nat, site.node, this.tunnels.receive)
    this.#facts = this.#discover()
  }

  start(): void {
    this.#process = this.#open()
  }

  stop(): void {
    this.#process?.life.abort()
    this.#process = undefined
    this.#world.relay.disconnect(this.site.node)
  }

  /** The site is no more. */
  remove(): void {
    this.stop()
    this.#world.internet.detach(this.site.inside.address)
  }

  /** The objects of the cluster are others. */
  objectsChanged(): void {
    this.#process?.mesh.trigger()
  }

  /** The site has another address. */
  renumber(address: string): void {
    this.#world.internet.renumber(this.site.nat, address)
    this.#facts = this.#discover()
    this.#process?.announcements.trigger()
  }

  /** A packet of a pod for another pool. */
  traffic(node: string): void {
    this.#process?.packets.leave(node)
  }

  get awake(): readonly string[] {
    return this.#process?.paths.awake().map(({ node }) => node) ?? []
  }

  get known(): ReadonlyMap<string, Announcement> {
    return this.#process?.announcements.peers ?? new Map()
  }

  get peers(): readonly Peer[] {
    return this.#process?.mesh.plan()?.peers ?? []
  }

  paths(): readonly PathStatus[] {
    return this.#process?.paths.status(this.#facts.nat, () => undefined) ?? []
  }

  rungTo(node: string): PathStatus['rung'] | undefined {
    return this.paths().find((path) => path.node === node)?.rung
  }

  /** Of everything that is kept by peer or pool. */
  sizes() {
    const { devices, routes } = this.kernel
    return {
      peers: RUNGS.map((rung) => devices[rung].size),
      routes: routes.routes.length,
      nexthops: routes.nexthops.length,
      paths: this.paths().length,
      sockets: this.#process?.packets.nodes().length,
    }
  }

  takeWork(): GatewayWork {
    const { work } = this
    this.work = newWork()
    return work
  }

  #discover(): Pick<Announcement, 'candidates' | 'nat'> {
    const { inside, nat } = this.site
    const found = this.#world.internet.discover(inside, nat)
    return { nat: found.nat, candidates: ownCandidates([inside], [], found.reflexive) }
  }

  #open(): Process {
    const { relay } = this.#world
    const { site, publicKey, kernel } = this
    const { node } = site
    const life = new AbortController()
    const log = createLog('sim', 'silent')
    const roles = new Roles()
    const pools = new PoolView()

    const announcements = runAnnouncements(
      {
        identity: site.identity,
        state: {
          announcements: this.#kept,
          nextSequence: async () => ++this.#sequence,
          saveAnnouncement: (peer, announcement) => void this.#kept.set(peer, announcement),
          removeAnnouncement: (peer) => void this.#kept.delete(peer),
          saveOrder: () => {},
        },
        facts: () => ({ wireguardKey: publicKey, ...this.#facts, role: ROLE }),
        nodes: () => new Map(this.#world.nodes().map(({ metadata }) => [metadata?.name ?? '', metadata?.uid ?? ''])),
        onDropped: () => mesh.trigger(),
        onLate: () => mesh.trigger(),
        clock: createClock(0, () => undefined, Date.now),
        peerGraceMs: Infinity,
        onOwn: (announcement) => void send({ kind: 'announce', node, announcement }),
        log,
      },
      life.signal,
    )
    for (const [peer, { role, certifiedMs }] of announcements.peers) if (role) roles.learn(peer, role, certifiedMs)

    const send = (frame: Parameters<typeof encodeSignal>[0]): boolean => relay.receive(node, encodeSignal(frame))
    const tellReady = (peer: string, reply: boolean): void => void send({ kind: 'ready', node: peer, reply })
    const readiness = new Readiness(tellReady)
    const packets = memoryPackets((peer) => paths.traffic(peer))
    const paths = runPaths(
      {
        privateKey: site.privateKey,
        publicKey,
        probes: () => ({
          send: (datagram, to, ttl) => this.tunnels.sendUdp(Buffer.from(datagram), to, ttl),
          malformed: () => 0,
        }),
        echoes: () => ({
          send: (rung, to, echo) =>
            this.tunnels.sendInside(rung, to, Buffer.from(encodeEcho({ ...echo, kind: 'request', role: ROLE }))),
          tellRole: () => {},
          carried: () => 0,
        }),
        isInside: (address) => pools.isInside(address),
        effects: {
          setEndpoint: (peer, to) => mesh.setEndpoint('direct', peer, to),
          move: (peer, rung, mtu) => mesh.move(peer, rung, mtu),
          call: (peer, reply) => void send({ kind: 'call', node: peer.node, reply }),
          ask: (peer) => tellReady(peer.node, false),
          suspect: () => {},
          role: (peer, said) => void (roles.learn(peer.node, said) && mesh.trigger()),
        },
        coldAfterMs: COLD_AFTER_MS,
        isWarm: () => false,
        log,
      },
      life.signal,
    )
    const mesh = runMesh(
      {
        node,
        pools: () =>
          pools.look({ nodes: this.#world.nodes(), nodePools: NO_OBJECTS, gateways: NO_OBJECTS }, () => OUTSIDE).pools,
        announcements: announcements.peers,
        roles: () => ({ active: true, routed: true, activeOf: (pool, isThere) => roles.activeOf(pool, isThere) }),
        wireguard: kernel.openWireGuard(),
        wireguardUdp: () => undefined,
        routes: kernel.openRoutes(),
        packets,
        paths: () => ({
          ...paths,
          setPeers: (peers, rungOf) => this.#watch(peers, () => paths.setPeers(peers, rungOf)),
        }),
        onConfigured: (peer) => readiness.configured(peer.node, paths.isAwake(peer.node)),
        log,
      },
      life.signal,
    )
    const onFrame = (text: string): void => {
      const frame = decodeSignal(text)
      if (life.signal.aborted || frame === undefined) return
      switch (frame.kind) {
        case 'announce':
          if (!announcements.receive(frame.node, frame.announcement)) return
          const said = announcements.peers.get(frame.node)!
          if (said.role) roles.learn(frame.node, said.role, said.certifiedMs)
          mesh.trigger()
          return readiness.announced(frame.node, paths.isAwake(frame.node))
        case 'ready': {
          const isConfigured = mesh.plan()?.peers.some((known) => known.node === frame.node) === true
          if (isConfigured) paths.ready(frame.node)
          return readiness.heard(frame.node, frame.reply, isConfigured)
        }
        case 'call':
          return paths.called(frame.node, frame.reply)
        default:
          return
      }
    }
    relay.connect({
      node,
      latencyMs: site.latencyMs,
      onFrame,
      onClose: () => paths.setRelayOpen(false),
      onOpen: () => {
        if (life.signal.aborted) return
        send(helloOf(announcements.digests()))
        const announcement = announcements.own()
        if (announcement !== undefined) send({ kind: 'announce', node, announcement })
        for (const { node } of paths.awake()) if (!paths.isReady(node)) tellReady(node, false)
        paths.setRelayOpen(true)
        mesh.trigger()
      },
    })
    announcements.trigger()
    mesh.trigger()
    return { life, announcements, paths, mesh, packets }
  }

  /** Which peers are others than in the pass before. */
  #watch(peers: readonly Peer[], pass: () => void): void {
    const before = new Set(this.#lastPeers)
    for (const peer of peers) if (!before.has(peer)) this.work.peers.add(peer.node)
    this.#lastPeers = peers
    this.work.passes++
    pass()
  }
  #lastPeers: readonly Peer[] = []
}

type Process = {
  readonly life: AbortController
  readonly announcements: Announcements
  readonly paths: Paths
  readonly mesh: Mesh
  readonly packets: ReturnType<typeof memoryPackets>
}

const newWork = (): GatewayWork => ({ peers: new Set(), passes: 0 })

const NO_OBJECTS: readonly never[] = []
const OUTSIDE = [
  { address: '198.51.100.1', what: 'the relay' },
  { address: '203.0.113.1', what: 'a STUN server' },
]
