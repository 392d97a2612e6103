// Every bound that protects a daemon, by where the code has it. The numbers are read from there.

/** What is bounded, the file, and the constant in it. */
export type Limit = readonly [what: string, path: string, name: string]
export type LimitGroup = { readonly title: string; readonly rows: readonly Limit[] }

export const LIMITS: readonly LimitGroup[] = [
  {
    title: 'Sessions with the relay',
    rows: [
      ['TLS connections of a relay', 'relay/tls-server.ts', 'MAX_CONNECTIONS'],
      ['time for a TLS handshake', 'relay/tls-server.ts', 'HANDSHAKE_TIMEOUT_MS'],
      ['time for a request', 'relay/tls-server.ts', 'REQUEST_TIMEOUT_MS'],
      ['sessions of gateways, of each kind', 'relay/websocket-server.ts', 'MAX_SESSIONS'],
      ['sessions of agents', 'relay/session-server.ts', 'MAX_SESSIONS'],
      ['sessions of one agent', 'relay/session-server.ts', 'MAX_SESSIONS_PER_NODE'],
      ['connections of one agent on which nothing was said', 'relay/session-server.ts', 'MAX_UNGREETED_PER_NODE'],
      ['what waits for one that reads nothing and pings', 'lib/net/websocket.ts', 'MAX_UNREAD_BYTES'],
      ['joins and renewals of one network', 'relay/issuer-server.ts', 'LIMIT'],
      ['networks whose rates are counted apart', 'relay/prefix-limit.ts', 'BUCKETS'],
    ],
  },
  {
    title: 'Between relays',
    rows: [
      ['relays of a mesh', 'lib/replicas.ts', 'MAX_REPLICAS'],
      ['URLs of one relay', 'lib/replicas.ts', 'MAX_URLS'],
      ['relays that are told of nodes', 'relay/replicas-server.ts', 'MAX_LISTENERS'],
      ['what waits for one that does not read', 'relay/replicas-server.ts', 'MAX_BUFFERED_BYTES'],
      ['nodes that one relay tells of', 'relay/presence.ts', 'MAX_NODES'],
      ['absent nodes that are remembered', 'relay/presence.ts', 'MAX_GONE'],
      ['sessions on which others open streams', 'relay/forward-server.ts', 'MAX_SESSIONS'],
    ],
  },
  {
    title: 'Signalling and STUN',
    rows: [
      ['frames of one gateway', 'relay/signal.ts', 'FRAMES'],
      ['announcements of one gateway', 'relay/signal.ts', 'ANNOUNCEMENTS'],
      ['announcements that a relay keeps', 'relay/signal.ts', 'MAX_ANNOUNCEMENTS'],
      ['a frame', 'lib/wire/signal.ts', 'MAX_SIGNAL_BYTES'],
      ['waiting for a gateway that reads slowly', 'relay/signal-server.ts', 'MAX_BUFFERED_BYTES'],
      ['STUN requests of one network', 'relay/stun-server.ts', 'LIMIT'],
      ['gateways that a gateway remembers', 'gateway/announcement.ts', 'MAX_PEERS'],
      ['addresses that a gateway may announce', 'gateway/announcement.ts', 'MAX_CANDIDATES'],
    ],
  },
  {
    title: 'Relayed packets',
    rows: [
      ['UDP sessions of one gateway', 'relay/udp-sessions.ts', 'MAX_SESSIONS_PER_GATEWAY'],
      ['bindings of one network', 'relay/udp-relay-server.ts', 'LIMIT'],
      ['peers that one gateway may number', 'relay/packet-server.ts', 'MAX_PEERS'],
      ['a frame with a packet', 'lib/wire/packet-frame.ts', 'MAX_PACKET_FRAME_BYTES'],
      ['packets that wait for one connection', 'lib/packet-queue.ts', 'MAX_PACKETS'],
      ['bytes under way on one connection', 'lib/packet-window.ts', 'MAX_BYTES'],
    ],
  },
  {
    title: 'Streams to nodes (kubectl logs, exec and the like)',
    rows: [
      ['streams of one session', 'lib/mux/receive-window.ts', 'MAX_STREAMS'],
      ['what they may have sent and nobody read, all together', 'lib/mux/receive-window.ts', 'BUDGET_BYTES'],
      ['window of one stream', 'lib/mux/receive-window.ts', 'MAX_WINDOW_BYTES'],
      ['a message', 'lib/wire/mux.ts', 'MAX_MESSAGE_BYTES'],
      ['pings of one session', 'lib/mux/session.ts', 'PINGS_PER_SECOND'],
      ['frames for streams that are over', 'lib/mux/session.ts', 'STRAY_PER_SECOND'],
      ['streams that a node has not answered yet', 'relay/session-server.ts', 'MAX_PENDING_DIALS'],
      ['new streams to one node', 'relay/session-server.ts', 'DIAL_RATE'],
      ['connections at --egress-listen and --egress-socket', 'relay/egress-server.ts', 'MAX_CONNECTIONS'],
      ['connections at --kubelet-listen', 'relay/kubelet-server.ts', 'MAX_CONNECTIONS'],
      ['a TLS hello there', 'lib/wire/client-hello.ts', 'MAX_HELLO_BYTES'],
    ],
  },
  {
    title: 'The relay’s Kubernetes API',
    rows: [
      ['body of a request', 'relay/api/answer-server.ts', 'BODY_MAX_BYTES'],
      ['watches', 'relay/api/api-server.ts', 'WATCHES_MAX'],
      ['watches of one node or user', 'relay/api/api-server.ts', 'WATCHES_PER_CALLER_MAX'],
      ['what waits for a watcher that does not read', 'relay/api/watch-server.ts', 'BACKLOG_MAX_BYTES'],
      ['changes kept for watchers, of each resource', 'relay/api/registry.ts', 'HISTORY_MAX'],
      ['Leases of one node', 'relay/api/write-server.ts', 'LEASES_PER_NODE_MAX'],
      ['objects written by nodes', 'relay/api/cluster.ts', 'WRITTEN_MAX'],
      ['one of them', 'relay/api/cluster.ts', 'WRITTEN_MAX_BYTES'],
      ['a token of a ServiceAccount', 'relay/api/service-account-token.ts', 'TOKEN_MAX_BYTES'],
      ['audiences of one', 'relay/api/service-accounts.ts', 'AUDIENCES_MAX'],
      ['files of --manifests', 'relay/api/folder-loop.ts', 'FILES_MAX'],
      ['one of them', 'relay/api/folder-loop.ts', 'FILE_MAX_BYTES'],
      ['all of them', 'relay/api/folder-loop.ts', 'TOTAL_MAX_BYTES'],
      ['calls to kubelets', 'relay/api/kubelet-client.ts', 'CALLS_MAX'],
      ['calls to kubelets of one user', 'relay/api/kubelet-client.ts', 'CALLS_PER_CALLER_MAX'],
    ],
  },
  {
    title: 'What daemons read of a Kubernetes API',
    rows: [
      ['connections', 'lib/k8s/api-exchange-client.ts', 'CONNECTIONS_MAX'],
      ['objects of a page', 'lib/k8s/api-client.ts', 'PAGE_LIMIT'],
      ['pages of a list', 'lib/k8s/api-client.ts', 'PAGES_MAX'],
      ['a page', 'lib/k8s/api-exchange-client.ts', 'BODY_MAX_BYTES'],
      ['an event of a watch', 'lib/k8s/api-client.ts', 'EVENT_MAX_BYTES'],
    ],
  },
  {
    title: 'DNS',
    rows: [
      ['questions that wait for an upstream, over UDP', 'agent/dns-server.ts', 'WAITING_MAX'],
      ['questions under way to upstreams', 'agent/dns-upstream-client.ts', 'PENDING_MAX'],
      ['TCP connections', 'agent/dns-tcp-server.ts', 'CONNECTIONS_MAX'],
      ['TCP connections of one client', 'agent/dns-tcp-server.ts', 'CONNECTIONS_PER_CLIENT_MAX'],
      ['questions of one connection that wait', 'agent/dns-tcp-server.ts', 'WAITING_MAX'],
      ['answers kept as they are, in each of two generations', 'agent/dns-answers.ts', 'ENTRIES_MAX'],
      ['aliases followed in one answer', 'agent/dns.ts', 'ALIASES_MAX'],
    ],
  },
  {
    title: 'Services',
    rows: [
      ['endpoints of a port of a Service, on one node', 'agent/choice.ts', 'TARGETS_MAX'],
      ['slots of a port of a Service: nft', 'agent/nft-service.ts', 'SLOTS_MAX'],
      ['slots of a port of a Service: BPF', 'agent/socket-lb.ts', 'SLOTS_MAX'],
      ['groups of processes that BPF leaves alone', 'agent/socket-lb-records.ts', 'EXCLUDED_GROUPS_MAX'],
      ['UDP flows forgotten in one pass', 'agent/conntrack-loop.ts', 'FLOWS_MAX'],
      ['endpoints whose calls are watched', 'agent/call-watch.ts', 'CALLED_MAX'],
      ['endpoints that are tried, at a time', 'agent/endpoint-checks.ts', 'MAX_RUNNING'],
      ['attempts at endpoints', 'agent/endpoint-checks.ts', 'MAX_PER_SECOND'],
      ['connections to health-check NodePorts', 'agent/health-node-port-server.ts', 'MAX_CONNECTIONS'],
    ],
  },
  {
    title: 'The LAN of a pool',
    rows: [
      ['a datagram', 'lib/wire/lan.ts', 'MAX_LAN_BYTES'],
      ['signatures checked', 'lib/lan.ts', 'CHECKS_PER_SECOND'],
      ['daemons whose last stamp is kept', 'lib/lan.ts', 'MAX_DAEMONS'],
      ['certificates kept ready', 'lib/lan.ts', 'MAX_CERTIFICATES'],
      ['endpoints found dead that are passed on, of all agents of a pool', 'gateway/findings.ts', 'MAX_LEARNT'],
    ],
  },
  {
    title: 'People and Prometheus',
    rows: [
      ['connections to /metrics and to the socket for status', 'lib/net/status-server.ts', 'MAX_CONNECTIONS'],
      ['programs in the file of --proxy-users', 'relay/ops-access.ts', 'MAX_USERS'],
    ],
  },
]
