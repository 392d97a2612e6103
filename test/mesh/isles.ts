// A cluster of the tests' own, unlike the shop in names, sizes and prefixes: pool glen by NodePool, pool loch by Raven's
// label, with its second node for gateway, and node iona, which is a pool of its own.
//
//   node n   100.70.n.0/24, fd5a:70:n::/64   cloud 0, glen1 1, glen2 2, mull 3, skye 4, iona 5; pods .7 client, .8 quay
//   service  100.90.0.s, fd5a:90::s          kube-dns 10, quay 20, tide 30 (UDP), fuel 40, and pilot, which is headless

import { writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { stringify } from 'yaml'

export const NODES = ['cloud', 'glen1', 'glen2', 'mull', 'skye', 'iona'] as const
export type IsleNode = (typeof NODES)[number]
export const NAMESPACE = 'port'

const LABELS: Record<IsleNode, object> = {
  cloud: { 'apps.openyurt.io/nodepool': 'cloud' },
  glen1: { 'apps.openyurt.io/nodepool': 'glen' },
  glen2: { 'apps.openyurt.io/nodepool': 'glen' },
  mull: { 'apps.openyurt.io/nodepool': 'isles', 'raven.openyurt.io/gateway': 'loch' },
  skye: { 'apps.openyurt.io/nodepool': 'isles', 'raven.openyurt.io/gateway': 'loch' },
  iona: {},
}
const CLIENT = 7
const QUAY = 8
const TCP = { name: 'http', port: 81, targetPort: 8181, protocol: 'TCP' }
const UDP = { name: 'tide', port: 9, targetPort: 9009, protocol: 'UDP' }

const numberOf = (node: IsleNode) => NODES.indexOf(node)
const addressesOf = (node: IsleNode, host: number) => [
  `100.70.${numberOf(node)}.${host}`,
  `fd5a:70:${numberOf(node)}::${host}`,
]
export const clusterIpsOf = (service: number) => [`100.90.0.${service}`, `fd5a:90::${service}`] as const
export const podCidrsOf = (node: IsleNode) => [`100.70.${numberOf(node)}.0/24`, `fd5a:70:${numberOf(node)}::/64`]

/** @param podCidrs what its object claims, instead of what is its. */
export const nodeObject = (name: IsleNode, podCidrs: readonly string[] = podCidrsOf(name)): object => ({
  apiVersion: 'v1',
  kind: 'Node',
  metadata: { name, labels: LABELS[name] },
  spec: { podCIDRs: podCidrs },
})

const pod = (node: IsleNode, name: string, host: number, ports: readonly (typeof TCP)[]): object => ({
  apiVersion: 'v1',
  kind: 'Pod',
  metadata: { name: `${node}-${name}`, namespace: NAMESPACE },
  spec: {
    nodeName: node,
    containers: [{ name, ports: ports.map(({ targetPort, protocol }) => ({ containerPort: targetPort, protocol })) }],
  },
  status: { phase: 'Running', podIPs: addressesOf(node, host).map((ip) => ({ ip })) },
})

type ServiceSpec = {
  readonly name: string
  /** The end of its ClusterIPs; headless without. */
  readonly number?: number
  readonly nodes: readonly IsleNode[]
  readonly port?: typeof TCP
  readonly annotations?: object
}

/** A Service and its EndpointSlices: the quays of some nodes. */
export function serviceObjects({ name, number, nodes, port = TCP, annotations = {} }: ServiceSpec): readonly object[] {
  const clusterIPs = number === undefined ? ['None'] : clusterIpsOf(number)
  const service = {
    apiVersion: 'v1',
    kind: 'Service',
    metadata: { name, namespace: NAMESPACE, annotations },
    spec: { clusterIP: clusterIPs[0], clusterIPs, ipFamilies: ['IPv4', 'IPv6'], ports: [port] },
  }
  const slices = ['IPv4', 'IPv6'].map((addressType, family) => ({
    apiVersion: 'discovery.k8s.io/v1',
    kind: 'EndpointSlice',
    metadata: {
      name: `${name}-${addressType.toLowerCase()}`,
      namespace: NAMESPACE,
      labels: { 'kubernetes.io/service-name': name },
    },
    addressType,
    ports: [{ name: port.name, port: port.targetPort, protocol: port.protocol }],
    endpoints: nodes.map((node) => ({
      addresses: [addressesOf(node, QUAY)[family]],
      conditions: { ready: true },
      nodeName: node,
      ...(number === undefined && { hostname: node }),
      targetRef: { kind: 'Pod', namespace: NAMESPACE, name: `${node}-quay` },
    })),
  }))
  return [service, ...slices]
}

const cluster: readonly object[] = [
  ...['kube-system', NAMESPACE].map((name) => ({ apiVersion: 'v1', kind: 'Namespace', metadata: { name } })),
  ...['cloud', 'glen', 'isles'].map((name) => ({
    apiVersion: 'apps.openyurt.io/v1beta2',
    kind: 'NodePool',
    metadata: { name },
    spec: { type: name === 'cloud' ? 'Cloud' : 'Edge', interConnectivity: true },
  })),
  {
    apiVersion: 'raven.openyurt.io/v1beta1',
    kind: 'Gateway',
    metadata: { name: 'loch' },
    spec: { endpoints: [{ nodeName: 'skye', type: 'tunnel', underNAT: true }] },
  },
  {
    apiVersion: 'v1',
    kind: 'Service',
    metadata: { name: 'kube-dns', namespace: 'kube-system' },
    spec: {
      clusterIP: clusterIpsOf(10)[0],
      clusterIPs: clusterIpsOf(10),
      ports: ['UDP', 'TCP'].map((protocol) => ({ name: `dns-${protocol.toLowerCase()}`, port: 53, protocol })),
    },
  },
]

export const write = (folder: string, file: string, objects: readonly object[]): void =>
  writeFileSync(
    join(folder, file),
    objects.map((object) => stringify(object, { aliasDuplicateObjects: false })).join('---\n'),
  )

export function writeIsles(folder: string): void {
  write(folder, 'cluster.yaml', cluster)
  for (const node of NODES)
    write(folder, `node-${node}.yaml`, [
      nodeObject(node),
      pod(node, 'client', CLIENT, []),
      pod(node, 'quay', QUAY, [TCP, UDP]),
    ])
  write(folder, 'quay.yaml', serviceObjects({ name: 'quay', number: 20, nodes: ['mull'] }))
  write(folder, 'tide.yaml', serviceObjects({ name: 'tide', number: 30, nodes: ['glen2'], port: UDP }))
  const annotations = { 'openyurt.io/topologyKeys': 'openyurt.io/nodepool' }
  write(
    folder,
    'fuel.yaml',
    serviceObjects({ name: 'fuel', number: 40, nodes: ['glen1', 'glen2', 'mull'], annotations }),
  )
  write(folder, 'pilot.yaml', serviceObjects({ name: 'pilot', nodes: ['glen2', 'iona'] }))
}
