// What each daemon answers on its Unix socket (GET /status), and what `fulmar status` merges.
// All times are Unix milliseconds, all durations milliseconds.

/** How two pools reach each other, best first. */
export const RUNGS = ['direct', 'relay-udp', 'relay-tcp'] as const
export type Rung = (typeof RUNGS)[number]

export type NatBehaviour = {
  /** RFC 4787: how the mapped port depends on the destination. */
  readonly mapping: 'none' | 'endpoint-independent' | 'address-dependent' | 'address-and-port-dependent' | 'unknown'
  readonly filtering: 'none' | 'endpoint-independent' | 'address-dependent' | 'address-and-port-dependent' | 'unknown'
  readonly udp: 'open' | 'blocked' | 'unknown'
  /** The address that the relay's STUN server sees for WireGuard's port, as `ip:port` or `[ip]:port`. */
  readonly mapped?: string
  /** What is behind this NAT reaches its mapped addresses; absent where there is no NAT, and while it is not known. */
  readonly hairpin?: boolean
  /** An idle mapping lives so long at least; absent while it is not known, and where nothing is filtered. */
  readonly lifetimeMs?: number
  /** An idle mapping is gone after so long; absent where it outlives the longest test. */
  readonly lifetimeBelowMs?: number
}

export type CandidateStatus = {
  readonly address: string
  readonly kind: 'host' | 'static' | 'mapped' | 'reflexive' | 'peer-reflexive'
  /** The last thing that happened: `answered in 1.2 ms`, `no answer to 40 probes`, … */
  readonly result: string
  /** `refused`: probes were answered, WireGuard did not get through. */
  readonly outcome?: 'answered' | 'refused' | 'silent' | 'untried'
}

/** Steps for people, each a sentence without its full stop; one of them is enough, or all are needed. */
export type Remedies = { readonly need: 'one' | 'all'; readonly steps: readonly string[] }

export type PathStatus = {
  readonly pool: string
  readonly node: string
  /** The peer stands by in its pool: nothing is routed to it, the path is there in case that changes. */
  readonly standby?: boolean
  /** `cold`: nothing is sent, so nothing is kept up; a first packet goes over the relay and wakes the path. */
  readonly rung: Rung | 'none' | 'cold'
  readonly since: number
  readonly rttMs?: number
  /** Share of the last echoes on the rung in use that were not answered, 0 to 1. */
  readonly loss?: number
  /** The largest packet that the path carries, where it is less than the devices' MTU, bytes. */
  readonly mtu?: number
  /** Why the path is not a better one; empty for a direct path. */
  readonly reason: string
  /** The outer address of the peer on a direct path. */
  readonly endpoint?: string
  readonly candidates: readonly CandidateStatus[]
  readonly peerNat?: NatBehaviour
  /** The last moves between rungs, newest first. */
  readonly history?: readonly { readonly at: number; readonly rung: Rung | 'cold'; readonly why: string }[]
  /** What would have to change for a better path; absent where there is none, or nothing is to be done. */
  readonly remedies?: Remedies
}

/** Age of the Kubernetes objects that a daemon works from. */
export type MetadataStatus = {
  /** `cloud` while the watch is alive, `disk` while last-known-good is served. */
  readonly source: 'cloud' | 'disk' | 'none'
  readonly server: string
  /** When the last event or bookmark arrived. */
  readonly updatedAt?: number
  readonly objects: Readonly<Record<string, number>>
  readonly error?: string
  /** Why the copy on disk, from which a start without the cloud goes, is not written at present. */
  readonly diskError?: string
}

/** A session with a relay. */
export type SessionStatus = {
  readonly url: string
  readonly state: 'connected' | 'connecting'
  readonly since: number
  /** Why the last session ended or none came about. */
  readonly error?: string
}
export type OpsSessionStatus = SessionStatus & { readonly streams: number }

export type GatewayStatus = {
  readonly kind: 'gateway'
  readonly version: string
  readonly node: string
  readonly pool: string
  /** In its pool, by election on the LAN. */
  readonly role?: {
    /** `listening`: not decided yet. */
    readonly state: 'active' | 'standby' | 'listening'
    /** Grows with each change of the active gateway. */
    readonly term: number
    readonly since: number
    /** The active gateway's node; absent where none is known. */
    readonly active?: string
    /** Gateways of this pool that stand by and are heard. */
    readonly standbys: readonly string[]
  }
  readonly startedAt: number
  readonly relay: SessionStatus
  readonly wireguard: {
    readonly implementation: 'kernel' | 'wireguard-go'
    readonly publicKey: string
    readonly port: number
  }
  readonly nat: NatBehaviour
  /** The addresses that it tells its peers, `ip:port`. */
  readonly candidates?: readonly Pick<CandidateStatus, 'address' | 'kind'>[]
  readonly paths: readonly PathStatus[]
  /** Reasons why objects were left out, such as two pools with one podCIDR. */
  readonly problems: readonly string[]
  readonly metadata: MetadataStatus
}

/** A ready endpoint of a service that looks dead from a node. */
export type SuspectStatus = {
  /** `namespace/name` */
  readonly service: string
  readonly portName: string
  readonly address: string
  readonly port: number
  readonly node?: string
  readonly reason: string
  /** It is used none the less, since there is no better one. */
  readonly used: boolean
}

export type AgentStatus = {
  readonly kind: 'agent'
  readonly version: string
  readonly node: string
  readonly pool: string
  readonly startedAt: number
  /** The session on which the cloud reaches this node's kubelet; absent where it is switched off. */
  readonly ops?: OpsSessionStatus & {
    /** One for each relay that this agent is or should be connected with. */
    readonly sessions?: readonly OpsSessionStatus[]
  }
  readonly dns: {
    readonly addresses: readonly string[]
    readonly queries: number
    readonly takeover: readonly string[]
  }
  readonly services: {
    readonly count: number
    readonly endpoints: number
    /** What serves TCP calls of the node's own processes; nft serves all else. `none`: other proxies serve them all. */
    readonly path: 'bpf' | 'nft' | 'none'
    /** Why it is not BPF. */
    readonly pathReason?: string
    /** Other service proxies on the node, such as `kube-proxy (iptables)`; absent where there are none. */
    readonly beside?: readonly string[]
  }
  /** Endpoints that are left out though the API calls them ready, the first hundred; absent where there are none. */
  readonly suspects?: readonly SuspectStatus[]
  /** The gateway that traffic to other pools is routed to; empty if this node is the gateway. */
  readonly gateway:
    | { readonly node: string; readonly address: string; readonly transport?: 'on-link' | 'vxlan' }
    | undefined
  readonly problems: readonly string[]
  readonly metadata: MetadataStatus
}

export type RelayedPackets = {
  readonly forwarded: number
  readonly bytes: number
  /** Those of more than 32 bytes, which is what a WireGuard keepalive has. */
  readonly overKeepalive: number
  readonly dropped: number
}

/** Sessions of pairs of gateways over UDP, forwarded by the relay. */
export type UdpRelayStatus = {
  readonly forwarder: 'kernel' | 'userspace'
  /** Why the kernel does not do it. */
  readonly reason?: string
  readonly addresses: readonly string[]
  /** `40000-49999` */
  readonly ports: string
  readonly sessions: readonly {
    readonly nodes: readonly [string, string]
    /** Both sides are bound, in one family at least. */
    readonly ready: boolean
    /** Where the sides are, `ip:port`. */
    readonly bound: readonly { readonly node: string; readonly address: string }[]
  }[]
  /** Packets and their bytes; as old as the last look, some seconds. */
  readonly forwarded: number
  readonly bytes: number
  /** Packets from where nobody is bound; dropped. */
  readonly unbound: number
  /** Packets that other rules of this host dropped, or for which it had no route. */
  readonly lost: number
  readonly problems: readonly string[]
}

export type RelayStatus = {
  readonly kind: 'relay'
  readonly version: string
  readonly startedAt: number
  readonly stun: { readonly addresses: readonly string[]; readonly requests: number }
  readonly sessions: readonly {
    readonly node: string
    readonly kind: 'signal' | 'packets' | 'ops'
    readonly address: string
    readonly since: number
    /** Open now, of kind ops. */
    readonly streams?: number
  }[]
  /** WireGuard packets relayed between gateways: all, and by pair of nodes and direction. */
  readonly packets: RelayedPackets & {
    readonly pairs: readonly (RelayedPackets & { readonly from: string; readonly to: string })[]
  }
  /** Streams to nodes: open now, asked for since the start, and those of them that failed, by reason. */
  readonly ops?: {
    readonly streams: number
    readonly dials: number
    readonly failures: Readonly<Record<'offline' | 'refused' | 'failed' | 'timeout' | 'busy', number>>
  }
  /** Other relays of this mesh, and the nodes that each can reach by itself. */
  readonly replicas?: readonly (SessionStatus & { readonly nodes: number })[]
  /** undefined where it is switched off. */
  readonly udpRelay: UdpRelayStatus | undefined
  readonly manifests:
    | {
        readonly directory: string
        readonly objects: number
        readonly problems: readonly string[]
      }
    | undefined
}

export type DaemonStatus = AgentStatus | GatewayStatus | RelayStatus
