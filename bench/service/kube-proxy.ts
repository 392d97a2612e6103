// Services as kube-proxy's nftables mode lays them out: a chain for each port of a service and one for each of its
// endpoints, reached through a verdict map. ClusterIPs without affinity; the chains that are there for NodePorts, source
// ranges and services without endpoints are empty-handed but run, as they do there.

import { createHash } from 'node:crypto'
import type { ServiceFrontends, Target } from '../../agent/balance.ts'

const KUBE_PROXY_TABLE = 'kube-proxy'

export type KubeProxyOptions = {
  readonly services: readonly ServiceFrontends[]
  /** Callers from elsewhere are masqueraded. */
  readonly podCidr: string
  readonly serviceCidr: string
  readonly nodeAddress: string
}

type ServicePort = {
  readonly address: string
  readonly port: number
  readonly chain: string
  readonly endpoints: readonly { readonly chain: string; readonly target: Target }[]
}

const BY_ADDRESS = 'ip daddr . meta l4proto . th dport'
const BY_PORT = 'meta l4proto . th dport'
/** Longer names of chains are not taken. */
const NAME_MAX = 120

/** A script for `nft -f`. */
export function kubeProxyTable({ services, podCidr, serviceCidr, nodeAddress }: KubeProxyOptions): string {
  const ports = services.flatMap(portsOf)
  return [
    `add table ip ${KUBE_PROXY_TABLE}`,
    `delete table ip ${KUBE_PROXY_TABLE}`,
    `table ip ${KUBE_PROXY_TABLE} {`,
    set('cluster-ips', 'ipv4_addr', [...new Set(ports.map(({ address }) => address))]),
    set('nodeport-ips', 'ipv4_addr', [nodeAddress]),
    map('service-ips', 'ipv4_addr . inet_proto . inet_service', ports.map(verdict)),
    map('no-endpoint-services', 'ipv4_addr . inet_proto . inet_service', []),
    map('firewall-ips', 'ipv4_addr . inet_proto . inet_service', []),
    map('service-nodeports', 'inet_proto . inet_service', []),
    map('no-endpoint-nodeports', 'inet_proto . inet_service', []),
    ...shared(serviceCidr),
    ...ports.flatMap((port) => chainsOf(port, podCidr)),
    ...hooks(),
    '}',
  ].join('\n')
}

const portsOf = ({ frontends }: ServiceFrontends): readonly ServicePort[] =>
  frontends
    .filter(({ kind, protocol, family }) => kind === 'cluster-ip' && protocol === 'TCP' && family === 4)
    .map(({ service, portName, address, port, targets }) => {
      const name = `${service}/tcp/${portName}`
      return {
        address: address!,
        port,
        chain: chainName('service', name),
        endpoints: targets.map((target) => ({
          target,
          chain: chainName('endpoint', `${name}__${target.address}/${target.port}`),
        })),
      }
    })

function chainName(kind: string, name: string): string {
  const hash = createHash('sha256').update(name).digest('hex').slice(0, 8).toUpperCase()
  return `${kind}-${hash}-${name}`.slice(0, NAME_MAX)
}

const verdict = ({ address, port, chain }: ServicePort): string => `${address} . tcp . ${port} : goto ${chain}`

const chainsOf = ({ address, port, chain, endpoints }: ServicePort, podCidr: string): readonly string[] => [
  rules(chain, [
    `ip daddr ${address} tcp dport ${port} ip saddr != ${podCidr} jump mark-for-masquerade`,
    `numgen random mod ${endpoints.length} vmap { ${endpoints.map(({ chain }, i) => `${i} : goto ${chain}`).join(', ')} }`,
  ]),
  ...endpoints.map(({ chain, target }) =>
    rules(chain, [
      // A pod that calls itself.
      `ip saddr ${target.address} jump mark-for-masquerade`,
      `meta l4proto tcp dnat to ${target.address}:${target.port}`,
    ]),
  ),
]

const shared = (serviceCidr: string): readonly string[] => [
  rules('mark-for-masquerade', ['mark set mark or 0x4000']),
  rules('masquerading', ['mark and 0x4000 == 0 return', 'mark set mark xor 0x4000', 'masquerade fully-random']),
  rules('reject-chain', ['reject']),
  rules('service-endpoints-check', [`${BY_ADDRESS} vmap @no-endpoint-services`]),
  rules('nodeport-endpoints-check', [`ip daddr @nodeport-ips ${BY_PORT} vmap @no-endpoint-nodeports`]),
  rules('cluster-ips-check', ['ip daddr @cluster-ips reject', `ip daddr { ${serviceCidr} } drop`]),
  rules('firewall-check', [`${BY_ADDRESS} vmap @firewall-ips`]),
]

/** After what they jump to. */
function hooks(): readonly string[] {
  const filter = (name: string, hook: string, priority: number, checks: readonly string[]): string =>
    rules(name, [
      `type filter hook ${hook} priority ${priority}; policy accept;`,
      ...checks.map((check) => `ct state new jump ${check}`),
    ])
  const nat = (name: string, hook: string, priority: number, to: string): string =>
    rules(name, [`type nat hook ${hook} priority ${priority}; policy accept;`, `jump ${to}`])
  return [
    rules('services', [`${BY_ADDRESS} vmap @service-ips`, `ip daddr @nodeport-ips ${BY_PORT} vmap @service-nodeports`]),
    filter('filter-prerouting', 'prerouting', -110, ['firewall-check']),
    filter('filter-input', 'input', -110, ['nodeport-endpoints-check', 'service-endpoints-check']),
    filter('filter-forward', 'forward', -110, ['service-endpoints-check', 'cluster-ips-check']),
    filter('filter-output', 'output', -110, ['service-endpoints-check', 'firewall-check']),
    filter('filter-output-post-dnat', 'output', -90, ['cluster-ips-check']),
    nat('nat-prerouting', 'prerouting', -100, 'services'),
    nat('nat-output', 'output', -100, 'services'),
    nat('nat-postrouting', 'postrouting', 100, 'masquerading'),
  ]
}

const rules = (name: string, lines: readonly string[]): string =>
  `  chain ${name} {\n${lines.map((line) => `    ${line}\n`).join('')}  }`
const set = (name: string, type: string, elements: readonly string[]): string =>
  `  set ${name} {\n    type ${type}\n${list(elements)}  }`
const map = (name: string, type: string, elements: readonly string[]): string =>
  `  map ${name} {\n    type ${type} : verdict\n${list(elements)}  }`
const list = (elements: readonly string[]): string =>
  elements.length === 0 ? '' : `    elements = { ${elements.join(', ')} }\n`
