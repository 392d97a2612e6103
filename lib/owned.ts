// What Fulmar owns in a kernel and on a disk: every name and number by which an object is known to be ours.
// Whatever carries one of these may be changed or removed by us; nothing else is ever touched.

/** Routing table of all mesh routes, looked up before main. */
export const ROUTE_TABLE = 7077
/** Looked up before it for what comes in over the mesh: the way on to pods of this pool on other nodes. */
export const RETURN_TABLE = 7078
export const RETURN_RULE_PRIORITY = 5100
/** The one rule: `not fwmark WIREGUARD_MARK lookup ROUTE_TABLE`, for IPv4 and IPv6. */
export const RULE_PRIORITY = 5101
/** WireGuard's own packets carry this mark, so that they never enter the mesh they carry. */
export const WIREGUARD_MARK = 0x46000000
export const WIREGUARD_MARK_MASK = 0xff000000
/** The numbers that may collide with another program's on a node, and so may be others there. */
export type Numbers = {
  readonly routeTable: number
  /** The next table. */
  readonly returnTable: number
  readonly rulePreference: number
  /** The preference before. */
  readonly returnPreference: number
  readonly mark: number
  readonly markMask: number
}
export const NUMBERS: Numbers = {
  routeTable: ROUTE_TABLE,
  returnTable: RETURN_TABLE,
  rulePreference: RULE_PRIORITY,
  returnPreference: RETURN_RULE_PRIORITY,
  mark: WIREGUARD_MARK,
  markMask: WIREGUARD_MARK_MASK,
}
/** Route protocol numbers (rtnetlink rtm_protocol) name the owner of a route. */
export const PROTOCOL_AGENT = 177
export const PROTOCOL_GATEWAY = 178
/** Nexthop objects of remote pools have ids from here on, in a range of 2^23. */
export const NEXTHOP_BASE = 0x46000000
export const NEXTHOP_RANGE = 0x00800000

/** One WireGuard device per rung of the ladder. */
export const DEVICES = { direct: 'fm-direct', 'relay-udp': 'fm-udp', 'relay-tcp': 'fm-tcp' } as const
/**
 * All that carry packets to other pools: `leave` is inside the rung in use, for a gateway that hands its role over
 * (gateway/handover-loop.ts), and is there for that long.
 */
export const CARRIERS = { ...DEVICES, leave: 'fm-leave' } as const
export type Carrier = keyof typeof CARRIERS
/** Between nodes of a pool that share no link: one per IP version outside. */
export const VXLAN_DEVICES = { 4: 'fm-vxlan', 6: 'fm-vxlan6' } as const
/** UDP port and network identifier (VNI) of those: not Calico's 4789 and 4096, not flannel's 8472 and 1. */
export const VXLAN_PORT = 7080
export const VXLAN_ID = 7077
/** The kernel takes a device without an IPv4 address for one with a strict reverse-path filter. */
export const VXLAN_ADDRESS = '169.254.20.54'
/** MTU of every WireGuard device: 1500 less WireGuard's 80 (IPv6 outside) less room for one more encapsulation. */
export const DEVICE_MTU = 1380
/** The least that a link may carry for IPv6 (RFC 8200 §5): routes over narrow paths get this one. */
export const LEAST_MTU = 1280

/** nft tables; the agent's first two come one per family, since their maps are keyed by address. */
export const NFT_TABLE_AGENT = 'fulmar'
export const NFT_TABLE_DNS = 'fulmar-dns'
export const NFT_TABLE_ROUTES = 'fulmar-routes'
export const NFT_TABLE_WATCH = 'fulmar-watch'
export const NFT_TABLE_GATEWAY = 'fulmar-gateway'
export const NFT_TABLE_RELAY = 'fulmar-relay'
/** Conntrack entries of relayed sessions carry this mark and the session's port; STUN to these ports has its own zone. */
export const RELAY_FLOW_MARK = 0x46000000
export const RELAY_FLOW_MARK_MASK = 0xffff0000
export const RELAY_STUN_ZONE = 7077
/** Flows to the agent's DNS have their own zone. */
export const DNS_ZONE = 7078

/** UDP port of gateways on the LAN of their pool; agents have the next one. */
export const LAN_PORT = 7078

/** Where the agent's DNS answers unless it is told otherwise, on `lo`. */
export const DNS_ADDRESSES: readonly string[] = ['169.254.20.53', 'fd66:756c:6d61::53']

/** Only the socket load balancer knows where these lead: to the agent itself, which calls them to prove that it works. */
export const CANARY_ADDRESSES = { 4: '169.254.20.55', 6: 'fd66:756c:6d61::55' } as const
export const CANARY_PORT = 7079
/** Links and maps of the socket load balancer, in a BPF file system. */
export const BPF_DIR = '/sys/fs/bpf/fulmar'

export const RUN_DIR = '/run/fulmar'
export const STATE_DIR = '/var/lib/fulmar'
/** Compiled code of our own, by version of Node; may be removed at any time. */
export const CACHE_DIR = '/var/cache/fulmar'
