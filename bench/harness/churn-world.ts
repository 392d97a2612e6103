// A cluster of very many services, as a kube-apiserver would send its objects: with managedFields, owners, and all that
// agents have no use for. Of each service there is one EndpointSlice, whose endpoints can move to other addresses.

export type ChurnSize = {
  readonly services: number
  /** Of each service. */
  readonly endpoints: number
}

export const NODE = 'edge-000'
export const NODE_ADDRESS = '10.244.1.1'
export const SERVICE_PORT = 80
export const TARGET_PORT = 8080
/** What the node takes for its own, so that every endpoint answers there; and where services without rules refuse at once. */
export const ENDPOINT_PREFIXES = ['10.128.0.0/10', '10.192.0.0/10'] as const
export const SERVICE_PREFIX = '10.96.0.0/12'

const NODES = 100
const SERVICES_PER_NAMESPACE = 100
const ENDPOINTS_MAX = 8
const NODE_IMAGES = 20
const CREATED = '2026-05-04T08:15:30Z'
const OPENED = '2026-05-04T08:15:31Z'

export const clusterIpOf = (service: number): string => ipv4(10, 96, service + 1)
/** @param moved false for where the endpoints were first. */
export const endpointOf = (service: number, endpoint: number, moved: boolean): string =>
  ipv4(10, moved ? 192 : 128, service * ENDPOINTS_MAX + endpoint + 1)
/** What the addresses of moved endpoints, or of others, begin with. */
export const isMoved = (address: string): boolean => Number(address.split('.')[1]) >= 192

export const nodeTexts = (): readonly string[] =>
  Array.from({ length: NODES }, (_, node) => JSON.stringify(nodeOf(node)))

export const serviceText = (service: number): string =>
  JSON.stringify({
    metadata: {
      name: nameOf(service),
      namespace: namespaceOf(service),
      uid: uidOf('5e', service),
      resourceVersion: String(service + 1),
      creationTimestamp: CREATED,
      labels: {
        app: nameOf(service),
        'app.kubernetes.io/instance': nameOf(service),
        'app.kubernetes.io/managed-by': 'Helm',
        'helm.sh/chart': 'backend-1.14.2',
      },
      annotations: {
        'meta.helm.sh/release-name': nameOf(service),
        'meta.helm.sh/release-namespace': namespaceOf(service),
      },
      managedFields: [
        {
          manager: 'helm',
          operation: 'Update',
          apiVersion: 'v1',
          time: CREATED,
          fieldsType: 'FieldsV1',
          fieldsV1: {
            'f:metadata': {
              'f:annotations': { '.': {}, 'f:meta.helm.sh/release-name': {}, 'f:meta.helm.sh/release-namespace': {} },
              'f:labels': {
                '.': {},
                'f:app': {},
                'f:app.kubernetes.io/instance': {},
                'f:app.kubernetes.io/managed-by': {},
                'f:helm.sh/chart': {},
              },
            },
            'f:spec': {
              'f:internalTrafficPolicy': {},
              'f:ports': {
                '.': {},
                'k:{"port":80,"protocol":"TCP"}': {
                  '.': {},
                  'f:name': {},
                  'f:port': {},
                  'f:protocol': {},
                  'f:targetPort': {},
                },
              },
              'f:selector': {},
              'f:sessionAffinity': {},
              'f:type': {},
            },
          },
        },
      ],
    },
    spec: {
      ports: [{ name: 'http', protocol: 'TCP', port: SERVICE_PORT, targetPort: TARGET_PORT }],
      selector: { app: nameOf(service), 'app.kubernetes.io/instance': nameOf(service) },
      clusterIP: clusterIpOf(service),
      clusterIPs: [clusterIpOf(service)],
      type: 'ClusterIP',
      sessionAffinity: 'None',
      ipFamilies: ['IPv4'],
      ipFamilyPolicy: 'SingleStack',
      internalTrafficPolicy: 'Cluster',
    },
    status: { loadBalancer: {} },
  })

/** @param version the object's resourceVersion. */
export const sliceText = (service: number, { endpoints }: ChurnSize, moved: boolean, version: number): string =>
  JSON.stringify({
    metadata: {
      name: `${nameOf(service)}-x7k2p`,
      generateName: `${nameOf(service)}-`,
      namespace: namespaceOf(service),
      uid: uidOf('e5', service),
      resourceVersion: String(version),
      generation: moved ? 8 : 7,
      creationTimestamp: CREATED,
      labels: {
        app: nameOf(service),
        'app.kubernetes.io/instance': nameOf(service),
        'app.kubernetes.io/managed-by': 'Helm',
        'endpointslice.kubernetes.io/managed-by': 'endpointslice-controller.k8s.io',
        'helm.sh/chart': 'backend-1.14.2',
        'kubernetes.io/service-name': nameOf(service),
      },
      annotations: { 'endpoints.kubernetes.io/last-change-trigger-time': OPENED },
      ownerReferences: [
        {
          apiVersion: 'v1',
          kind: 'Service',
          name: nameOf(service),
          uid: uidOf('5e', service),
          controller: true,
          blockOwnerDeletion: true,
        },
      ],
      managedFields: [
        {
          manager: 'kube-controller-manager',
          operation: 'Update',
          apiVersion: 'discovery.k8s.io/v1',
          time: OPENED,
          fieldsType: 'FieldsV1',
          fieldsV1: {
            'f:addressType': {},
            'f:endpoints': {},
            'f:metadata': {
              'f:annotations': { '.': {}, 'f:endpoints.kubernetes.io/last-change-trigger-time': {} },
              'f:generateName': {},
              'f:labels': {
                '.': {},
                'f:app': {},
                'f:app.kubernetes.io/instance': {},
                'f:app.kubernetes.io/managed-by': {},
                'f:endpointslice.kubernetes.io/managed-by': {},
                'f:helm.sh/chart': {},
                'f:kubernetes.io/service-name': {},
              },
              'f:ownerReferences': { '.': {}, [`k:{"uid":"${uidOf('5e', service)}"}`]: {} },
            },
            'f:ports': {},
          },
        },
      ],
    },
    addressType: 'IPv4',
    endpoints: Array.from({ length: endpoints }, (_, endpoint) => ({
      addresses: [endpointOf(service, endpoint, moved)],
      conditions: { ready: true, serving: true, terminating: false },
      // Never on the node that is measured: whoever calls itself is another case.
      nodeName: nodeName(1 + ((service * 7 + endpoint) % (NODES - 1))),
      targetRef: {
        kind: 'Pod',
        namespace: namespaceOf(service),
        name: `${nameOf(service)}-6d4b75cb6d-${pad(endpoint, 2)}x9z`,
        uid: uidOf(`a${endpoint}`, service),
      },
    })),
    ports: [{ name: 'http', protocol: 'TCP', port: TARGET_PORT }],
  })

function nodeOf(node: number): object {
  const name = nodeName(node)
  const condition = (type: string, status: string) => ({
    type,
    status,
    lastHeartbeatTime: OPENED,
    lastTransitionTime: CREATED,
    reason: `Kubelet${type}`,
    message: `kubelet says ${type} is ${status}`,
  })
  return {
    metadata: {
      name,
      uid: uidOf('90', node),
      resourceVersion: String(node + 1),
      creationTimestamp: CREATED,
      labels: {
        'kubernetes.io/arch': 'arm64',
        'kubernetes.io/hostname': name,
        'kubernetes.io/os': 'linux',
        'apps.openyurt.io/nodepool': 'edge',
      },
      annotations: { 'node.alpha.kubernetes.io/ttl': '0' },
    },
    // Those of the others are their CNI's own business.
    spec: node === 0 ? { podCIDR: '10.244.1.0/24', podCIDRs: ['10.244.1.0/24'] } : {},
    status: {
      capacity: { cpu: '4', 'ephemeral-storage': '30298176Ki', memory: '3884376Ki', pods: '110' },
      allocatable: { cpu: '4', 'ephemeral-storage': '27922798940', memory: '3781976Ki', pods: '110' },
      conditions: [
        ...['MemoryPressure', 'DiskPressure', 'PIDPressure'].map((type) => condition(type, 'False')),
        condition('Ready', 'True'),
      ],
      addresses: [
        { type: 'InternalIP', address: node === 0 ? NODE_ADDRESS : ipv4(172, 16, node + 1) },
        { type: 'Hostname', address: name },
      ],
      daemonEndpoints: { kubeletEndpoint: { Port: 10250 } },
      nodeInfo: {
        machineID: uidOf('91', node),
        systemUUID: uidOf('92', node),
        bootID: uidOf('93', node),
        kernelVersion: '6.12.0-arm64',
        osImage: 'Debian GNU/Linux 13',
        containerRuntimeVersion: 'containerd://2.0.2',
        kubeletVersion: 'v1.34.2',
        operatingSystem: 'linux',
        architecture: 'arm64',
      },
      images: Array.from({ length: NODE_IMAGES }, (_, image) => ({
        names: [
          `registry.example.com/team/image-${image}@sha256:${uidOf('aa', image).replaceAll('-', '').repeat(2)}`,
          `registry.example.com/team/image-${image}:1.${image}.0`,
        ],
        sizeBytes: 40_000_000 + image,
      })),
    },
  }
}

const pad = (number: number, digits: number): string => String(number).padStart(digits, '0')
const nodeName = (node: number): string => `edge-${pad(node, 3)}`
const nameOf = (service: number): string => `backend-${pad(service, 5)}`
const namespaceOf = (service: number): string => `team-${pad(Math.floor(service / SERVICES_PER_NAMESPACE), 3)}`
const uidOf = (kind: string, number: number): string =>
  `${kind}c1f3d2-7b1e-4c8a-9d5f-${number.toString(16).padStart(12, '0')}`
const ipv4 = (first: number, second: number, number: number): string =>
  `${first}.${second + (number >> 16)}.${(number >> 8) & 255}.${number & 255}`
