// A shop for any pools and nodes, as Kubernetes objects: what shop/*.yaml is by hand, made by number.
//   node n (the cloud's first, then in order)   10.(244 + n/256).(n mod 256).0/24   fd00:244:n::/64 (decimal digits)
//   pods of a node                              .2 client, .10 shop; ::2 and ::10
//   service of pool p                           10.96.16+.p web, 10.96.48+.p echo; fd00:96:: with the same last 16 bits

import { stringify } from 'yaml'
import type {
  EndpointSlice,
  KubernetesObject,
  Node,
  NodePool,
  Pod,
  RavenGateway,
  Service,
} from '../../lib/k8s/objects.ts'

export type ManifestPool = { readonly name: string; readonly nodes: readonly string[] }

export const NAMESPACE = 'shop'
/** The cloud's pool and only node, put first unless it is asked for. */
const CLOUD: ManifestPool = { name: 'cloud', nodes: ['cloud'] }
/** 10.244.0.0/16 to 10.255.0.0/16. */
const NODES_MAX = 12 * 256
const POOLS_MAX = 32 * 256
const WEB = { name: 'http', port: 80, targetPort: 8080, protocol: 'TCP' }
const ECHO = { name: 'echo', port: 7, targetPort: 7, protocol: 'UDP' }
const CACHE_SERVICE = 0x0032
const WEB_SERVICES = 16 << 8
const ECHO_SERVICES = 48 << 8
/** Kubernetes' own controller puts no more into one slice. */
const ENDPOINTS_PER_SLICE = 100

/**
 * YAML by file name: `cluster.yaml`, and `pool-NAME.yaml` for each pool, with services `web-NAME` (TCP 80), `echo-NAME`
 * (UDP 7) and `db-NAME` (headless, hostnames are nodes), whose endpoints are pods `NODE-shop` of that pool only, and a pod
 * `NODE-client` on every node.
 * @throws RangeError for more nodes than the address plan has room for.
 */
export function generateManifests({ pools }: { readonly pools: readonly ManifestPool[] }): ReadonlyMap<string, string> {
  const all = pools.some(({ name }) => name === CLOUD.name) ? pools : [CLOUD, ...pools]
  const inOrder = all.toSorted((a, b) => Number(b.name === CLOUD.name) - Number(a.name === CLOUD.name))
  const nodes = inOrder.flatMap((pool) => pool.nodes)
  if (nodes.length > NODES_MAX || inOrder.length > POOLS_MAX)
    throw new RangeError(`${nodes.length} nodes: the lab's addresses are enough for ${NODES_MAX}; ask for fewer`)
  const numbers = new Map(nodes.map((name, index) => [name, index]))
  const files = new Map([['cluster.yaml', yaml('What belongs to no pool.', clusterObjects(nodes, numbers))]])
  const raven = inOrder.find(({ name }) => name !== CLOUD.name)
  for (const [index, pool] of inOrder.entries())
    files.set(`pool-${pool.name}.yaml`, yaml(`Pool ${pool.name}.`, poolObjects(pool, index, numbers, pool === raven)))
  return files
}

function clusterObjects(nodes: readonly string[], numbers: Numbers): readonly KubernetesObject[] {
  const namespaces = ['kube-system', NAMESPACE].map((name) => ({
    apiVersion: 'v1',
    kind: 'Namespace',
    metadata: { name },
  }))
  const dns = service('kube-dns', 0x000a, [
    { name: 'dns', port: 53, targetPort: 53, protocol: 'UDP' },
    { name: 'dns-tcp', port: 53, targetPort: 53, protocol: 'TCP' },
  ])
  const cache = service('cache', CACHE_SERVICE, [WEB])
  return [
    ...namespaces,
    { ...dns, metadata: { name: 'kube-dns', namespace: 'kube-system', labels: { 'k8s-app': 'kube-dns' } } },
    { ...cache, metadata: { ...cache.metadata, annotations: { 'openyurt.io/topologyKeys': 'openyurt.io/nodepool' } } },
    ...slices('cache', nodes, WEB, numbers),
  ]
}

function poolObjects(
  pool: ManifestPool,
  index: number,
  numbers: Numbers,
  withGateway: boolean,
): readonly KubernetesObject[] {
  const { name, nodes } = pool
  const nodePool: NodePool = {
    apiVersion: 'apps.openyurt.io/v1beta2',
    kind: 'NodePool',
    metadata: { name },
    spec: { type: name === CLOUD.name ? 'Cloud' : 'Edge', interConnectivity: true },
  }
  return [
    nodePool,
    ...(withGateway ? [ravenGateway(pool)] : []),
    ...nodes.map((node) => nodeObject(node, name, numbers)),
    service(`web-${name}`, WEB_SERVICES + index, [WEB]),
    ...slices(`web-${name}`, nodes, WEB, numbers),
    service(`echo-${name}`, ECHO_SERVICES + index, [ECHO]),
    ...slices(`echo-${name}`, nodes, ECHO, numbers),
    service(`db-${name}`, undefined, [WEB]),
    ...slices(`db-${name}`, nodes, WEB, numbers, 'hostnames'),
    ...nodes.flatMap((node) => [
      podObject(node, 'shop', SHOP_HOST, [WEB, ECHO], numbers),
      podObject(node, 'client', CLIENT_HOST, [], numbers),
    ]),
  ]
}

type Numbers = ReadonlyMap<string, number>
type Port = { readonly name: string; readonly port: number; readonly targetPort: number; readonly protocol: string }
const CLIENT_HOST = 2
const SHOP_HOST = 10

function prefixesOf(node: string, numbers: Numbers): { readonly v4: string; readonly v6: string } {
  const number = numbers.get(node)!
  return { v4: `10.${244 + (number >> 8)}.${number & 0xff}.`, v6: `fd00:244:${number}::` }
}

function addressesOf(node: string, host: number, numbers: Numbers): readonly [string, string] {
  const { v4, v6 } = prefixesOf(node, numbers)
  return [`${v4}${host}`, `${v6}${host}`]
}

function nodeObject(name: string, pool: string, numbers: Numbers): Node {
  const { v4, v6 } = prefixesOf(name, numbers)
  return {
    apiVersion: 'v1',
    kind: 'Node',
    metadata: { name, labels: { 'apps.openyurt.io/nodepool': pool } },
    spec: { podCIDRs: [`${v4}0/24`, `${v6}/64`] },
  }
}

function ravenGateway({ name, nodes }: ManifestPool): RavenGateway {
  return {
    apiVersion: 'raven.openyurt.io/v1beta1',
    kind: 'Gateway',
    metadata: { name },
    spec: {
      tunnelConfig: { Replicas: 1 },
      endpoints: nodes.map((nodeName) => ({ nodeName, type: 'tunnel', underNAT: true })),
    },
  }
}

/** @param number the last 16 bits of both ClusterIPs; undefined for a headless service. */
function service(name: string, number: number | undefined, ports: readonly Port[]): Service {
  const clusterIPs =
    number === undefined ? ['None'] : [`10.96.${number >> 8}.${number & 0xff}`, `fd00:96::${number.toString(16)}`]
  return {
    apiVersion: 'v1',
    kind: 'Service',
    metadata: { name, namespace: NAMESPACE },
    spec: {
      type: 'ClusterIP',
      clusterIP: clusterIPs[0]!,
      clusterIPs,
      ipFamilyPolicy: 'RequireDualStack',
      ipFamilies: ['IPv4', 'IPv6'],
      ports: ports.map((port) => ({ ...port })),
    },
  }
}

function slices(
  owner: string,
  nodes: readonly string[],
  { name, targetPort, protocol }: Port,
  numbers: Numbers,
  hostnames?: 'hostnames',
): readonly EndpointSlice[] {
  return (['IPv4', 'IPv6'] as const).flatMap((addressType, family) =>
    Array.from({ length: Math.ceil(nodes.length / ENDPOINTS_PER_SLICE) }, (_, part) => ({
      apiVersion: 'discovery.k8s.io/v1',
      kind: 'EndpointSlice',
      metadata: {
        name: `${owner}-${addressType.toLowerCase()}${part === 0 ? '' : `-${part}`}`,
        namespace: NAMESPACE,
        labels: {
          'kubernetes.io/service-name': owner,
          ...(hostnames && { 'service.kubernetes.io/headless': '' }),
        },
      },
      addressType,
      ports: [{ name, port: targetPort, protocol }],
      endpoints: nodes.slice(part * ENDPOINTS_PER_SLICE, (part + 1) * ENDPOINTS_PER_SLICE).map((node) => ({
        addresses: [addressesOf(node, SHOP_HOST, numbers)[family]!],
        conditions: { ready: true, serving: true, terminating: false },
        ...(hostnames && { hostname: node }),
        nodeName: node,
        targetRef: { kind: 'Pod', namespace: NAMESPACE, name: `${node}-shop` },
      })),
    })),
  )
}

function podObject(node: string, app: string, host: number, ports: readonly Port[], numbers: Numbers): Pod {
  const addresses = addressesOf(node, host, numbers)
  return {
    apiVersion: 'v1',
    kind: 'Pod',
    metadata: { name: `${node}-${app}`, namespace: NAMESPACE, labels: { app } },
    spec: {
      nodeName: node,
      containers: [
        {
          name: app,
          image: `shop/${app}`,
          ports: ports.map(({ name, targetPort, protocol }) => ({ name, containerPort: targetPort, protocol })),
        },
      ],
    },
    status: { phase: 'Running', podIP: addresses[0], podIPs: addresses.map((ip) => ({ ip })) },
  }
}

function yaml(header: string, objects: readonly KubernetesObject[]): string {
  return `# ${header}\n${objects.map((object) => stringify(object, { aliasDuplicateObjects: false })).join('---\n')}`
}
