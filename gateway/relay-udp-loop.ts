// The rung relay-udp: a session in the relay's kernel for each peer without a direct path. Its device is made when it is
// first of use; where every pair is direct it costs nothing.
//
//   fm-udp ── WireGuard's port, shared with our probe socket ──▶ relay:port ══ forwarded in its kernel ══▶ the peer's

import type { SocketAddress } from '../lib/address.ts'
import type { Log } from '../lib/log.ts'
import { pause, tick } from '../lib/net/lifetime.ts'
import type { UdpSessionFrame } from '../lib/wire/signal.ts'
import type { Mesh } from './mesh-loop.ts'
import type { Paths } from './path-loop.ts'
import { openProbeSocket } from './probe-client.ts'
import type { SignalClient } from './signal-client.ts'
import { openUdpRelay, type UdpRelay } from './udp-relay-client.ts'
import type { WireGuard } from './wireguard-loop.ts'

export type RelayUdp = {
  /** Looks for peers that want a session, from now on. */
  readonly start: (openDevice: OpenDevice, mesh: Mesh) => void
  /** undefined until it was first of use. */
  readonly device: () => WireGuard | undefined
  readonly onSession: (frame: UdpSessionFrame) => void
  readonly onEnd: (node: string, reason: string) => void
  /** The signal session is new. */
  readonly reask: () => void
  /** Nothing comes back from a peer: the address that the relay has of us may be an old one. */
  readonly refresh: (node: string) => void
}

/** Makes or adopts fm-udp, and keeps it until the signal aborts. */
type OpenDevice = (signal: AbortSignal) => Promise<WireGuard>

/** How often it is looked which peers want a session. */
const LOOK_MS = 500
const RETRY_MS = 5_000

export function createRelayUdp(
  options: {
    /** Of the socket that shares the port of fm-udp. */
    readonly probePort: number
    readonly signalling: () => SignalClient
    readonly paths: () => Paths
    readonly log: Log
  },
  signal: AbortSignal,
): RelayUdp {
  const { paths, log } = options
  let device: WireGuard | undefined
  let relay: UdpRelay | undefined
  let opening: Promise<void> | undefined
  /** Of sessions whose peer is none of ours yet: it learnt of us first. */
  const early = new Map<string, SocketAddress>()
  let started: { readonly openDevice: OpenDevice; readonly mesh: Mesh } | undefined

  const useSession = (mesh: Mesh, node: string, endpoint: SocketAddress): void => {
    const peer = mesh.plan()?.peers.find((known) => known.node === node)
    if (peer === undefined) return void early.set(node, endpoint)
    early.delete(node)
    mesh.setEndpoint('relay-udp', peer, endpoint).then(
      () => paths().setUdpBound(node, true),
      (err: unknown) => log.warn({ err, peer: node }, "the relay's UDP cannot be used for a peer"),
    )
  }

  const open = async (signal: AbortSignal): Promise<void> => {
    if (started === undefined) throw new Error('not started')
    const { openDevice, mesh } = started
    const probes = await openProbeSocket(
      {
        port: options.probePort,
        onMessage: (message, datagram, from) => void relay?.onStun(message, datagram, from),
      },
      signal,
    )
    device = await openDevice(signal)
    await mesh.apply()
    relay = openUdpRelay(
      {
        send: (datagram, to) => probes.send(datagram, to),
        request: (node) => options.signalling().send({ kind: 'udp-request', node }),
        onBound: (node, endpoint) => useSession(mesh, node, endpoint),
        onLost: (node) => {
          early.delete(node)
          paths().setUdpBound(node, false)
        },
        log,
      },
      signal,
    )
  }
  /** Resolves once the device is there; a failed attempt is repeated when it is next of use, 5 s later at the soonest. */
  const ensureOpen = (): Promise<void> => {
    const failed = new AbortController()
    return (opening ??= open(AbortSignal.any([signal, failed.signal])).catch(async (err: unknown) => {
      failed.abort(err)
      device = undefined
      log.warn({ err }, "no device for the relay's UDP; relayed packets go over TCP")
      await pause(RETRY_MS, signal)
      opening = undefined
    }))
  }

  const run = async (): Promise<void> => {
    while (!signal.aborted) {
      const wanted = paths().wantUdpRelay()
      if (wanted.length > 0) await ensureOpen()
      relay?.want(wanted)
      if (started !== undefined) for (const [node, endpoint] of early) useSession(started.mesh, node, endpoint)
      await tick(LOOK_MS, signal)
    }
  }

  return {
    start: (openDevice, mesh) => {
      started = { openDevice, mesh }
      void run()
    },
    device: () => device,
    onSession: (frame) => {
      if (started !== undefined) void ensureOpen().then(() => relay?.onSession(frame))
    },
    onEnd: (node, reason) => relay?.onEnd(node, reason),
    reask: () => relay?.reask(),
    refresh: (node) => relay?.refresh(node),
  }
}
