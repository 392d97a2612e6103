// What `fulmar status` and the lab show of any number of daemons: problems first, then agents, gateways, the path of
// each pair of pools with the reason why it is not a better one, and the relay with its sessions.

import { natName } from './nat-text.ts'
import { compareTexts } from './order.ts'
import { pathStory, QUALITY_COLUMNS, qualityCells } from './paths-text.ts'
import { problemsText, type HostStatus, type SilentDaemon } from './problems-text.ts'
import type {
  AgentStatus,
  DaemonStatus,
  GatewayStatus,
  MetadataStatus,
  PathStatus,
  RelayStatus,
  UdpRelayStatus,
} from './status.ts'
import { bytesText, countText, durationText, LINE_WIDTH, listText, paragraph, renderTable } from './text-table.ts'

type Gateway = { readonly host: string; readonly status: GatewayStatus }
/** One way of a pair of pools. */
type Way = { readonly from: GatewayStatus; readonly path: PathStatus }

/** A table names the first few; all of them are in the JSON. */
const MAX_PLACES = 4
const MAX_SUSPECTS = 20
const MAX_SESSIONS = 50
/** Of more pairs than that, `fulmar paths POOL` tells the story. */
const MAX_STORIES = 4

/** @param nowMs Unix time, against which all ages are shown. @param width of a line, in columns. */
export function renderStatus(
  statuses: readonly HostStatus[],
  nowMs: number,
  silent: readonly SilentDaemon[] = [],
  width = LINE_WIDTH,
): string {
  const agents = of(statuses, 'agent')
  const gateways = of(statuses, 'gateway')
  const relays = of(statuses, 'relay')
  const oneHost = new Set(statuses.map(({ host }) => host)).size === 1
  const sections = [
    problemsText(statuses, silent, nowMs, width),
    agents.length > 0 &&
      `Agents\n${agentsTable(agents, nowMs, width)}${servicePathsText(agents, width)}${suspectsText(agents, width)}`,
    gateways.length > 0 && `Gateways\n${gatewaysTable(gateways, nowMs, width)}`,
    gateways.length > 0 && `Paths\n${pathsText(gateways, nowMs, oneHost, width)}`,
    ...relays.map((relay) => relayText(relay, nowMs, width)),
  ]
  return sections.filter((section) => section !== false).join('\n')
}

function of<K extends DaemonStatus['kind']>(statuses: readonly HostStatus[], kind: K) {
  type Wanted = Extract<DaemonStatus, { kind: K }>
  return statuses
    .filter((entry): entry is { host: string; status: Wanted } => entry.status.kind === kind)
    .toSorted((a, b) => compareTexts(a.host, b.host))
}

const ago = (since: number, nowMs: number): string => durationText(nowMs - since)

// Agents and gateways

function agentsTable(agents: readonly { host: string; status: AgentStatus }[], nowMs: number, width: number): string {
  const rows = agents.map(({ status }) => [
    status.node,
    status.pool,
    ago(status.startedAt, nowMs),
    gatewayOf(status),
    `${status.services.count}, ${countText(status.services.endpoints, 'endpoint')}`,
    dnsText(status.dns),
    String(status.dns.queries),
    metadataText(status.metadata, nowMs),
  ])
  const columns = [
    ...columnsOf('NODE', 'POOL', 'UP', 'GATEWAY'),
    ...wrappedColumnsOf('SERVICES', 'DNS'),
    { title: 'QUERIES', align: 'right' } as const,
    ...wrappedColumnsOf('METADATA'),
  ]
  return renderTable(columns, rows, '  ', width)
}

/** Endpoints that are left out, once for all nodes that leave them out. */
function suspectsText(agents: readonly { status: AgentStatus }[], width: number): string {
  const lines = agents.flatMap(({ status: { node, suspects = [] } }) =>
    suspects.map(({ service, address, port, node: on, reason, used }) => {
      const where = `${address.includes(':') ? `[${address}]` : address}:${port}${on === undefined ? '' : ` on ${on}`}`
      const what = used ? 'used for want of a better one' : 'left out'
      return { node, text: `${service}: endpoint ${where} is ${what}: ${reason}` }
    }),
  )
  const grouped = [...Map.groupBy(lines, ({ text }) => text)].map(([text, those]) => {
    const nodes = listText([...new Set(those.map(({ node }) => node))], MAX_PLACES)
    return paragraph('  ', '    ', `${nodes}: ${text}`, width)
  })
  const rest = grouped.length - MAX_SUSPECTS
  return `${grouped.slice(0, MAX_SUSPECTS).join('')}${rest > 0 ? `  and ${rest} more endpoints\n` : ''}`
}

/** Where nft serves TCP calls of a node's own processes and not BPF, or nothing does, and why; and beside whom. */
function servicePathsText(agents: readonly { status: AgentStatus }[], width: number): string {
  const lines = agents.flatMap(({ status: { node, services } }) => {
    const { path, pathReason, beside = [] } = services
    const how = path === 'nft' ? 'services by nft, not by BPF' : 'services not by Fulmar'
    return [
      ...(path === 'bpf' || pathReason === undefined ? [] : [{ node, text: `${how}: ${pathReason}` }]),
      ...(path === 'none' || beside.length === 0
        ? []
        : [{ node, text: `services by Fulmar first, beside ${beside.join(' and ')}` }]),
    ]
  })
  return [...Map.groupBy(lines, ({ text }) => text)]
    .map(([text, those]) => {
      const nodes = listText(
        those.map(({ node }) => node),
        MAX_PLACES,
      )
      return paragraph('  ', '    ', `${nodes}: ${text}`, width)
    })
    .join('')
}

/** By way of which node, and whether that is on another link. */
const gatewayOf = ({ gateway }: AgentStatus): string =>
  gateway === undefined ? 'itself' : `${gateway.node}${gateway.transport === 'vxlan' ? ', by VXLAN' : ''}`

const columnsOf = (...titles: readonly string[]) => titles.map((title) => ({ title }))
const wrappedColumnsOf = (...titles: readonly string[]) => titles.map((title) => ({ title, overflow: 'wrap' }) as const)

/** The first of its addresses, and whether it answers in the place of the cluster's own DNS; the JSON has all. */
function dnsText({ addresses, takeover }: AgentStatus['dns']): string {
  return [...addresses.slice(0, 1), ...(takeover.length === 0 ? [] : ['cluster DNS'])].join(', ') || 'none'
}

function gatewaysTable(gateways: readonly Gateway[], nowMs: number, width: number): string {
  // Where every gateway is, and was, its pool's only one, all are active and nothing is to be said.
  const withRoles = gateways.some(
    ({ status: { role } }) =>
      role !== undefined && (role.state === 'standby' || role.standbys.length > 0 || role.term > 1),
  )
  const rows = gateways.map(({ status }) => [
    status.node,
    status.pool,
    ...(withRoles ? [roleText(status, nowMs)] : []),
    ago(status.startedAt, nowMs),
    status.wireguard.implementation,
    `${status.relay.state === 'connected' ? '' : `${status.relay.state} `}${ago(status.relay.since, nowMs)}`,
    // The longest names are made to fit a narrow column; cones apart, nothing is restricted.
    natName(status.nat).replace('restricted cone', 'restricted'),
    status.nat.mapped ?? '-',
    metadataText(status.metadata, nowMs),
  ])
  const wrapped = ['WIREGUARD', 'RELAY', 'NAT', 'SEEN AT', 'METADATA']
  const titles = ['NODE', 'POOL', ...(withRoles ? ['ROLE'] : []), 'UP']
  return renderTable([...columnsOf(...titles), ...wrappedColumnsOf(...wrapped)], rows, '  ', width)
}

/** The term tells how often the role has moved. */
function roleText({ role }: GatewayStatus, nowMs: number): string {
  if (role === undefined) return '-'
  const { state, term, since } = role
  return state === 'active' ? `active, term ${term}, ${ago(since, nowMs)}` : state
}

function metadataText({ source, updatedAt }: MetadataStatus, nowMs: number): string {
  if (source === 'none') return 'none'
  return updatedAt === undefined ? source : `${source}, ${ago(updatedAt, nowMs)}`
}

// Paths

/** One row for each pair of pools; two where its ways differ, or where one side only is known. */
function pathsText(gateways: readonly Gateway[], nowMs: number, oneHost: boolean, width: number): string {
  const ways = gateways.flatMap(({ status }) => status.paths.map((path): Way => ({ from: status, path })))
  const used = new Set<Way>()
  const rows: { readonly cells: readonly string[]; readonly way: Way }[] = []
  for (const way of ways.toSorted(
    (a, b) => compareTexts(pairOf(a), pairOf(b)) || compareTexts(a.from.pool, b.from.pool),
  )) {
    if (used.has(way)) continue
    const back = ways.find(
      (other) =>
        !used.has(other) && other !== way && other.from.node === way.path.node && other.path.node === way.from.node,
    )
    const equal = back !== undefined && back.path.rung === way.path.rung && back.path.reason === way.path.reason
    used.add(way)
    if (equal) used.add(back)
    const arrow = equal ? '↔' : '→'
    const since = Math.max(way.path.since, equal ? back.path.since : 0)
    rows.push({ cells: pathCells(way, arrow, since, nowMs), way })
  }
  if (rows.length === 0) return '  none: no other pool is known\n'
  const [titles, ...lines] = renderTable(
    PATH_COLUMNS,
    rows.map(({ cells }) => cells),
    '  ',
    width,
  ).split(/(?<=\n)/)
  const explained = rows.filter(({ way }) => isToExplain(way.path)).length
  const whole = oneHost && explained <= MAX_STORIES
  const story = ({ from, path }: Way): string => {
    if (!isToExplain(path)) return ''
    if (whole) return pathStory(from.pool, path, nowMs, '      ', width)
    return paragraph('      ', '      ', path.reason, width)
  }
  const hint =
    explained === 0 || whole ? '' : '  fulmar paths POOL, on the node of a gateway, tells the whole story of a pair\n'
  return [titles, ...lines.map((line, index) => line + story(rows[index]!.way)), hint].join('')
}

/** A cold path is no worse than it should be. */
const isToExplain = ({ rung, reason }: PathStatus): boolean => reason !== '' && rung !== 'cold'

/** One line for each row, whatever the names are: explanations go between them. */
const PATH_COLUMNS = [
  { title: 'POOLS', overflow: 'cut' },
  { title: 'PATH' },
  { title: 'GATEWAYS', overflow: 'cut' },
  ...QUALITY_COLUMNS,
] as const

/** Equal for both ways of a pair. */
const pairOf = ({ from, path }: Way): string => [from.pool, path.pool].toSorted().join(' ')

function pathCells({ from, path }: Way, arrow: string, since: number, nowMs: number): readonly string[] {
  return [
    `${from.pool} ${arrow} ${path.pool}`,
    path.rung,
    `${from.node} ${arrow} ${path.node}${path.standby === true ? ' (standby)' : ''}`,
    ...qualityCells(path, since, nowMs),
  ]
}

// The relay

function opsText({ streams, dials, failures }: NonNullable<RelayStatus['ops']>): string {
  const failed = Object.entries(failures).flatMap(([failure, count]) => (count === 0 ? [] : [`${count} ${failure}`]))
  return `${countText(streams, 'stream')} to nodes, ${countText(dials, 'dial')}${failed.length === 0 ? '' : `: ${failed.join(', ')}`}`
}

function relayText({ host, status }: { host: string; status: RelayStatus }, nowMs: number, width: number): string {
  const { stun, packets, udpRelay, manifests, sessions } = status
  const facts = [
    `up ${ago(status.startedAt, nowMs)}`,
    `STUN on ${stun.addresses.join(' ')}, ${countText(stun.requests, 'request')}`,
    `${countText(packets.forwarded, 'packet')} relayed (${bytesText(packets.bytes)}), ` +
      `${packets.overKeepalive} of them more than keepalives, ${packets.dropped} dropped`,
    ...(status.ops === undefined ? [] : [opsText(status.ops)]),
    ...(status.replicas ?? []).map(({ url, state, nodes }) =>
      state === 'connected' ? `${url} reaches ${countText(nodes, 'node')}` : `${url} does not answer`,
    ),
    ...(udpRelay === undefined ? [] : [udpRelayText(udpRelay)]),
    ...(manifests === undefined ? [] : [`${countText(manifests.objects, 'object')} from ${manifests.directory}`]),
  ]
  const rows = sessions
    .toSorted((a, b) => compareTexts(a.node, b.node) || compareTexts(b.kind, a.kind))
    .slice(0, MAX_SESSIONS)
    .map(({ node, kind, address, since, streams }) => [
      node,
      streams ? `${kind}, ${countText(streams, 'stream')}` : kind,
      address,
      ago(since, nowMs),
    ])
  const titles = ['SESSION OF', 'KIND', 'ADDRESS', 'SINCE']
  const rest = sessions.length - rows.length
  return [
    `Relay on ${host}\n`,
    ...facts.map((fact) => paragraph('  ', '    ', fact, width)),
    rows.length === 0 ? '  no sessions\n' : renderTable(columnsOf(...titles), rows, '  ', width),
    rest > 0 ? `  and ${countText(rest, 'session')} more\n` : '',
  ].join('')
}

function udpRelayText({ forwarder, reason, addresses, ports, sessions, ...counts }: UdpRelayStatus): string {
  const ready = sessions.filter((session) => session.ready).length
  const drops = [
    counts.unbound > 0 && `${counts.unbound} dropped from where nobody is bound`,
    counts.lost > 0 && `${counts.lost} lost to this host’s own rules or routes`,
  ].filter((text) => text !== false)
  return [
    `UDP sessions by ${forwarder === 'kernel' ? 'the kernel' : 'userspace'} on ${addresses.join(' ')} ports ${ports}` +
      (reason === undefined ? '' : ` (${reason})`),
    `${sessions.length} open, ${ready} of them bound at both ends`,
    [`${countText(counts.forwarded, 'packet')} (${bytesText(counts.bytes)})`, ...drops].join(', '),
  ].join('; ')
}
