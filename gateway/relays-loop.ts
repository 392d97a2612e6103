// What goes between gateways by way of relays: control frames, WireGuard packets over TCP, and over UDP where that passes.
// Who says that its devices know a peer's key is answered here (readiness.ts).

import type { LiveIdentity } from '../lib/net/identity-loop.ts'
import type { RelayList } from '../lib/net/relay-list.ts'
import type { Log } from '../lib/log.ts'
import type { Announcements } from './announcements-loop.ts'
import type { Mesh } from './mesh-loop.ts'
import { openPacketClient, type PacketClient } from './packet-client.ts'
import type { Paths } from './path-loop.ts'
import { Readiness } from './readiness.ts'
import { createRelayUdp, type RelayUdp } from './relay-udp-loop.ts'
import { openSignalClient, type SignalClient } from './signal-client.ts'
import type { Ports } from './state-loop.ts'

export type Relays = {
  readonly signalling: SignalClient
  readonly packets: PacketClient
  readonly udp: RelayUdp
  readonly readiness: Pick<Readiness, 'announced' | 'configured'>
  /** Asks whether a peer's devices know our key. */
  readonly ask: (node: string) => void
  /** Nothing comes back from a peer: the site may have another address, or its NAT other mappings. */
  readonly suspect: (node: string) => void
  /** Where sessions lead. */
  readonly addresses: () => readonly string[]
  /** Resolves when the signal has aborted and the sessions are closed. */
  readonly closed: Promise<unknown>
}

export function openRelays(
  options: {
    readonly identity: LiveIdentity
    readonly relays: RelayList
    readonly ports: Ports
    readonly publicKey: string
    readonly announcements: Pick<Announcements, 'own' | 'digests' | 'receive'>
    /** A peer's announcement is news. */
    readonly onAnnouncement: (peer: string) => void
    /** undefined until the devices are there. */
    readonly mesh: () => Mesh | undefined
    readonly paths: () => Paths
    readonly log: Log
  },
  signal: AbortSignal,
): Relays {
  const { identity, relays, ports, publicKey, announcements, mesh, paths, log } = options
  const tellReady = (node: string, reply: boolean): void => void signalling.send({ kind: 'ready', node, reply })
  const readiness = new Readiness(tellReady)
  const ask = (node: string): void => tellReady(node, false)

  const signalling = openSignalClient(
    {
      identity,
      relays,
      log,
      digests: announcements.digests,
      onOpen: () => {
        const announcement = announcements.own()
        if (announcement !== undefined) signalling.send({ kind: 'announce', node: identity.node, announcement })
        // What was lost without a relay is asked for.
        for (const { node } of paths().awake()) if (!paths().isReady(node)) ask(node)
        udp.reask()
        // The relay may be at another address than before, which no route may take.
        mesh()?.trigger()
      },
      onAnnounce: (peer, announcement) => announcements.receive(peer, announcement) && options.onAnnouncement(peer),
      onReady: (peer, reply) => {
        const isConfigured =
          mesh()
            ?.plan()
            ?.peers.some(({ node }) => node === peer) === true
        if (isConfigured) {
          paths().ready(peer)
          packets.ready(peer)
        }
        readiness.heard(peer, reply, isConfigured)
      },
      onCall: (peer, reply) => paths().called(peer, reply),
      onUdpSession: (frame) => udp.onSession(frame),
      onUdpEnd: (peer, reason) => udp.onEnd(peer, reason),
    },
    signal,
  )
  const packets = openPacketClient(
    {
      identity,
      relays,
      wireguardPort: ports.relayTcp,
      wireguardKey: publicKey,
      log,
      onTraffic: (node) => paths().traffic(node),
      onChange: () => paths().setRelayOpen(packets.state().state === 'connected'),
    },
    signal,
  )
  const udp = createRelayUdp({ probePort: ports.udpProbe, signalling: () => signalling, paths, log }, signal)

  return {
    signalling,
    packets,
    udp,
    readiness,
    ask,
    suspect: (node) => {
      udp.refresh(node)
      signalling.check()
      packets.check()
    },
    addresses: () => [...signalling.addresses(), ...packets.addresses()],
    closed: Promise.all([signalling.closed, packets.closed]),
  }
}
