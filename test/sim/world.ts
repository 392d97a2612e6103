// A mesh of so many pools, each behind a NAT, in memory: some of its gateways run in full, the others are sessions with
// the relay that announce themselves and answer. What happens to the mesh are methods; `settle` lets it come to rest.

import { createPrivateKey, X509Certificate } from 'node:crypto'
import { signAnnouncement } from '../../gateway/announcement.ts'
import { ownCandidates } from '../../gateway/candidates.ts'
import { publicKeyOf } from '../../gateway/probe.ts'
import { socketAddress } from '../../lib/address.ts'
import { createAuthority, createClient, validFor, type KeyPair } from '../../lib/certificates.ts'
import type { Node } from '../../lib/k8s/objects.ts'
import { LABEL_NODE_POOL } from '../../lib/k8s/pools.ts'
import {
  decodeSignal,
  digestsText,
  encodeSignal,
  type SignalFrame,
  type SignedAnnouncement,
} from '../../lib/wire/signal.ts'
import { Clock } from './clock.ts'
import { helloOf, SimGateway, type Surroundings } from './gateway.ts'
import { Internet, Nat, NAT_TYPES, type NatType } from './internet.ts'
import { SimRelay } from './relay.ts'
import { privateKeyFor, type Site } from './site.ts'

export type WorldOptions = {
  readonly pools: number
  /** How many of them run in full. */
  readonly full: number
  readonly seed: number
}

/** Pools that may be added later. */
const SPARE = 2
const START_MS = 5_000

/** Certificates take long to make, and many worlds may use them. */
let authority: Promise<KeyPair> | undefined
const certificates: KeyPair[] = []

async function ensureCertificates(count: number): Promise<KeyPair> {
  const ca = await (authority ??= createAuthority('sim', validFor(Date.now(), 1)))
  for (let i = certificates.length; i < count; i++)
    certificates.push(
      await createClient(
        ca,
        { commonName: `system:node:${nameOf(i)}`, organization: 'system:nodes' },
        validFor(Date.now(), 1),
      ),
    )
  return ca
}

const poolName = (i: number): string => `p${String(i).padStart(4, '0')}`
const nameOf = (i: number): string => `${poolName(i)}-a`

export class World {
  readonly clock: Clock
  readonly internet: Internet
  readonly relay: SimRelay
  /** Those that run in full, by node. */
  readonly gateways = new Map<string, SimGateway>()
  readonly #light = new Map<string, LightGateway>()
  #nodes: Node[] = []
  readonly #options: WorldOptions
  readonly #ca: KeyPair
  readonly #surroundings: Surroundings
  readonly #uninstall: () => void
  #next = 0

  /** All pools are there, and their gateways know each other. Virtual time is installed until `close`. */
  static async create(options: WorldOptions): Promise<World> {
    const ca = await ensureCertificates(options.pools + SPARE)
    const world = new World(options, ca)
    for (let i = 0; i < options.pools; i++) world.#add(i < options.full)
    await world.clock.run(START_MS)
    return world
  }

  private constructor(options: WorldOptions, ca: KeyPair) {
    this.#options = options
    this.#ca = ca
    this.clock = new Clock(options.seed, Date.now())
    this.#uninstall = this.clock.install()
    this.internet = new Internet(this.clock)
    this.relay = new SimRelay(this.clock)
    this.#surroundings = {
      clock: this.clock,
      internet: this.internet,
      relay: this.relay,
      nodes: () => this.#nodes,
      gatewayOf: (node) => this.gateways.get(node),
    }
  }

  close(): void {
    for (const gateway of this.gateways.values()) gateway.stop()
    this.#uninstall()
  }

  get pools(): number {
    return this.#nodes.length / NODES_PER_POOL
  }

  gateway(index: number): SimGateway {
    const gateway = this.gateways.get(nameOf(index))
    if (gateway === undefined) throw new Error(`pool ${index} does not run in full`)
    return gateway
  }

  /** @returns the gateway of a new pool; it starts a moment after its objects are there. */
  addPool(): SimGateway {
    const index = this.#next
    this.#add(true)
    this.#objectsChanged()
    return this.gateway(index)
  }

  removePool(gateway: SimGateway): void {
    const { node, pool } = gateway.site
    gateway.remove()
    this.gateways.delete(node)
    this.#nodes = this.#nodes.filter(({ metadata }) => metadata?.labels?.[LABEL_NODE_POOL] !== pool)
    this.#objectsChanged()
  }

  renumber(gateway: SimGateway): void {
    gateway.renumber(publicAddress(this.#next + 10_000 + this.#renumbered++))
  }
  #renumbered = 0

  restart(gateway: SimGateway): void {
    gateway.stop()
    this.clock.at(gateway.site.node, 300, () => gateway.start())
  }

  /** As the kubelet's heartbeats do: another object of the same contents, as far as the mesh is concerned. */
  touchNode(index: number): void {
    this.#nodes = this.#nodes.map((node, i) => (i === index ? { ...node } : node))
    this.#objectsChanged()
  }

  sites(): readonly Site[] {
    return [...this.gateways.values(), ...this.#light.values()].map(({ site }) => site)
  }

  #objectsChanged(): void {
    for (const gateway of this.gateways.values())
      this.clock.at(gateway.site.node, gateway.site.latencyMs, () => gateway.objectsChanged())
  }

  #add(full: boolean): void {
    const index = this.#next++
    const site = this.#site(index)
    this.#nodes = [...this.#nodes, ...nodesOf(index)]
    if (full) {
      const gateway = new SimGateway(site, this.#surroundings)
      this.gateways.set(site.node, gateway)
      this.clock.at(site.node, 100 * this.clock.random(), () => gateway.start())
    } else {
      const light = new LightGateway(site, this.relay, this.internet)
      this.#light.set(site.node, light)
      this.clock.at(site.node, 100 * this.clock.random(), () => light.start())
    }
  }

  #site(index: number): Site {
    const node = nameOf(index)
    const privateKey = privateKeyFor(node, this.#options.seed)
    const type: NatType = NAT_TYPES[index % NAT_TYPES.length]!
    const [address, outside] = [`172.${16 + (index >> 8)}.${index & 255}.2`, publicAddress(index)]
    const inside = socketAddress(type === 'open' ? outside : address, 20_000 + (index % 10_000))!
    const certificate = certificates[index]!
    return {
      node,
      pool: poolName(index),
      identity: { node, ...certificate, caPem: this.#ca.certificatePem },
      privateKey,
      publicKey: publicKeyOf(privateKey),
      podCidrs: nodesOf(index).flatMap(({ spec }) => spec?.podCIDRs ?? []),
      inside,
      nat: new Nat(type, outside),
      latencyMs: 5 + 35 * this.clock.random(),
    }
  }
}

const publicAddress = (i: number): string => `${100 + (i >> 16)}.${(i >> 8) & 255}.${i & 255}.1`

const NODES_PER_POOL = 2

function nodesOf(index: number): readonly Node[] {
  const pool = poolName(index)
  return ['a', 'b'].map((name, i) => {
    const half = 2 * index + i
    return {
      metadata: {
        name: `${pool}-${name}`,
        labels: { [LABEL_NODE_POOL]: pool },
        creationTimestamp: new Date(Date.UTC(2026, 0, 1) + half * 1_000).toISOString(),
      },
      spec: { podCIDRs: [`10.${half >> 8}.${half & 255}.0/24`, `fd00:244:${half.toString(16)}::/64`] },
      status: { addresses: [{ type: 'InternalIP', address: `172.${16 + (index >> 8)}.${index & 255}.${2 + i}` }] },
    } as unknown as Node
  })
}

/** A gateway that the relay sees and that has no traffic: it announces itself, and answers who asks whether it is ready. */
class LightGateway {
  readonly site: Site
  readonly #relay: SimRelay
  readonly #announce: SignalFrame
  /** By node. */
  readonly #known = new Map<string, SignedAnnouncement>()

  constructor(site: Site, relay: SimRelay, internet: Internet) {
    this.site = site
    this.#relay = relay
    internet.attach(site.inside.address, site.nat, site.node, () => {})
    const { nat, reflexive } = internet.discover(site.inside, site.nat)
    const announcement = signAnnouncement(
      {
        node: site.node,
        sequence: 1,
        wireguardKey: site.publicKey,
        candidates: ownCandidates([site.inside], [], reflexive),
        nat,
        role: { active: true, term: 1 },
      },
      new X509Certificate(site.identity.certificatePem),
      createPrivateKey(site.identity.keyPem),
    )
    this.#announce = { kind: 'announce', node: site.node, announcement }
  }

  start(): void {
    const { node, latencyMs } = this.site
    this.#relay.connect({
      node,
      latencyMs,
      onOpen: () => {
        this.#send(helloOf(digestsText(this.#known.values())))
        this.#send(this.#announce)
      },
      onClose: () => {},
      onFrame: (text) => this.#onFrame(decodeSignal(text)),
    })
  }

  #onFrame(frame: SignalFrame | undefined): void {
    if (frame?.kind === 'announce') this.#known.set(frame.node, frame.announcement)
    if (frame?.kind === 'ready' && !frame.reply) this.#send({ kind: 'ready', node: frame.node, reply: true })
  }

  #send(frame: SignalFrame): void {
    this.#relay.receive(this.site.node, encodeSignal(frame))
  }
}
