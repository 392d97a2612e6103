// Tables (meta/v1 Table): the columns that `kubectl get` shows, for the kinds that people look at; the rest have a name
// and an age. Columns of priority 1 are those of `-o wide`.

import type {
  EndpointSlice,
  KubernetesObject,
  Lease,
  Node,
  NodePool,
  Pod,
  RavenGateway,
  Service,
} from '../../lib/k8s/objects.ts'
import type { Kind } from './kinds.ts'

type Cell = string | number
type Column<T> = {
  readonly name: string
  readonly wide?: true
  readonly type?: 'integer'
  readonly cell: (object: T, nowMs: number) => Cell
}

export type TableOptions = {
  readonly kind: Kind
  /** What each row carries beside its cells. */
  readonly include: 'None' | 'Metadata' | 'Object'
  readonly nowMs: number
  readonly listMetadata: Readonly<Record<string, unknown>>
}

export function tableOf(
  objects: readonly KubernetesObject[],
  { kind, include, nowMs, listMetadata }: TableOptions,
): object {
  const columns = columnsOf(kind)
  return {
    kind: 'Table',
    apiVersion: 'meta.k8s.io/v1',
    metadata: listMetadata,
    columnDefinitions: columns.map(({ name, wide, type }) => ({
      name,
      type: type ?? 'string',
      format: name === 'Name' ? 'name' : '',
      description: '',
      priority: wide ? 1 : 0,
    })),
    rows: objects.map((object) => ({
      cells: columns.map(({ cell }) => cell(object, nowMs)),
      ...(include === 'Object' && { object }),
      ...(include === 'Metadata' && {
        object: { kind: 'PartialObjectMetadata', apiVersion: 'meta.k8s.io/v1', metadata: object.metadata },
      }),
    })),
  }
}

const NONE = '<none>'
const UNSET = '<unset>'
const LISTED_MAX = 3

const column = <T>(name: string, cell: (object: T, nowMs: number) => Cell | undefined, wide?: 'wide'): Column<T> => ({
  name,
  cell: (object, nowMs) => cell(object, nowMs) ?? NONE,
  ...(wide && { wide: true }),
})
const number = <T>(name: string, cell: (object: T) => number | undefined): Column<T> => ({
  name,
  type: 'integer',
  cell: (object) => cell(object) ?? 0,
})
const nameColumn = column<KubernetesObject>('Name', ({ metadata }) => metadata?.name)
const ageColumn = column<KubernetesObject>('Age', ({ metadata }, nowMs) => {
  const created = Date.parse(metadata?.creationTimestamp ?? '')
  return Number.isNaN(created) ? '<unknown>' : ageText(nowMs - created)
})

function columnsOf({ group, kind }: Kind): readonly Column<KubernetesObject>[] {
  const own = (COLUMNS[`${kind}.${group}`] ?? []) as readonly Column<KubernetesObject>[]
  return [nameColumn, ...own.filter(({ wide }) => !wide), ageColumn, ...own.filter(({ wide }) => wide)]
}

/** A few of them, then how many more. */
function some(items: readonly (string | undefined)[]): string {
  const present = items.filter((item) => item !== undefined && item !== '')
  if (present.length === 0) return NONE
  const rest = present.length - LISTED_MAX
  return present.slice(0, LISTED_MAX).join(',') + (rest > 0 ? ` + ${rest} more...` : '')
}
const pairs = (labels: Readonly<Record<string, string>> | undefined) =>
  Object.entries(labels ?? {})
    .map(([key, value]) => `${key}=${value}`)
    .join(',') || NONE
const addressOf = (node: Node, type: string) =>
  node.status?.addresses?.find((address) => address.type === type)?.address

function nodeStatus({ spec, status }: Node): string {
  const ready = status?.conditions?.find(({ type }) => type === 'Ready')?.status
  const word = ready === 'True' ? 'Ready' : ready === 'False' ? 'NotReady' : 'Unknown'
  return spec?.unschedulable === true ? `${word},SchedulingDisabled` : word
}
const ROLE = 'node-role.kubernetes.io/'
const rolesOf = ({ metadata }: Node) =>
  Object.keys(metadata?.labels ?? {})
    .flatMap((key) => (key.startsWith(ROLE) ? [key.slice(ROLE.length)] : []))
    .toSorted()
    .join(',') || NONE

function podReady({ spec, status }: Pod): string {
  const total = spec?.containers?.length ?? 0
  // Without a kubelet nobody reports containers: a pod that runs is taken at its word.
  const ready =
    status?.containerStatuses?.filter((each) => each.ready).length ?? (status?.phase === 'Running' ? total : 0)
  return `${ready}/${total}`
}
const restartsOf = ({ status }: Pod) =>
  (status?.containerStatuses ?? []).reduce((sum, { restartCount }) => sum + restartCount, 0)
const servicePorts = ({ spec }: Service) =>
  (spec?.ports ?? [])
    .map(({ port, nodePort, protocol }) => `${port}${nodePort ? `:${nodePort}` : ''}/${protocol ?? 'TCP'}`)
    .join(',') || NONE
const externalOf = ({ spec, status }: Service) =>
  spec?.type === 'ExternalName'
    ? spec.externalName
    : some([
        ...(spec?.externalIPs ?? []),
        ...(status?.loadBalancer?.ingress ?? []).map(({ ip, hostname }) => ip ?? hostname),
      ])

type Scaled = KubernetesObject & {
  readonly spec?: {
    readonly replicas?: number
    readonly template?: { readonly spec?: { readonly nodeSelector?: Record<string, string> } }
  }
  readonly status?: Readonly<Record<string, number | undefined>>
}
type WithData = KubernetesObject & { readonly data?: object; readonly binaryData?: object }
type WithPhase = KubernetesObject & { readonly status?: { readonly phase?: string } }
type WithSubsets = KubernetesObject & {
  readonly subsets?: readonly {
    readonly addresses?: readonly { readonly ip: string }[]
    readonly ports?: readonly { readonly port: number }[]
  }[]
}

const COLUMNS: Readonly<Record<string, readonly unknown[]>> = {
  'Node.': [
    column<Node>('Status', nodeStatus),
    column<Node>('Roles', rolesOf),
    column<Node>('Pool', ({ metadata }) => metadata?.labels?.['apps.openyurt.io/nodepool']),
    column<Node>('Internal-IP', (node) => addressOf(node, 'InternalIP'), 'wide'),
    column<Node>('External-IP', (node) => addressOf(node, 'ExternalIP'), 'wide'),
    column<Node>('Pod-CIDRs', ({ spec }) => some(spec?.podCIDRs ?? []), 'wide'),
    column<Node>('Version', ({ status }) => status?.nodeInfo?.kubeletVersion, 'wide'),
    column<Node>('OS-Image', ({ status }) => status?.nodeInfo?.osImage, 'wide'),
    column<Node>('Kernel-Version', ({ status }) => status?.nodeInfo?.kernelVersion, 'wide'),
  ],
  'Pod.': [
    column<Pod>('Ready', podReady),
    column<Pod>('Status', ({ status }) => status?.reason ?? status?.phase ?? 'Unknown'),
    number<Pod>('Restarts', restartsOf),
    column<Pod>('IP', ({ status }) => some(status?.podIPs?.map(({ ip }) => ip) ?? [status?.podIP]), 'wide'),
    column<Pod>('Node', ({ spec }) => spec?.nodeName, 'wide'),
  ],
  'Service.': [
    column<Service>('Type', ({ spec }) => spec?.type ?? 'ClusterIP'),
    column<Service>('Cluster-IP', ({ spec }) => spec?.clusterIP || spec?.clusterIPs?.[0]),
    column<Service>('External-IP', externalOf),
    column<Service>('Port(s)', servicePorts),
    column<Service>('Cluster-IPs', ({ spec }) => some(spec?.clusterIPs ?? [spec?.clusterIP]), 'wide'),
    column<Service>('Selector', ({ spec }) => pairs(spec?.selector), 'wide'),
  ],
  'EndpointSlice.discovery.k8s.io': [
    column<EndpointSlice>('AddressType', ({ addressType }) => addressType),
    column<EndpointSlice>('Ports', ({ ports }) =>
      ports?.length ? some(ports.map(({ port }) => String(port ?? '*'))) : UNSET,
    ),
    column<EndpointSlice>('Endpoints', ({ endpoints }) =>
      endpoints?.length ? some(endpoints.flatMap(({ addresses }) => addresses)) : UNSET,
    ),
  ],
  'Endpoints.': [
    column<WithSubsets>('Endpoints', ({ subsets }) =>
      some(
        (subsets ?? []).flatMap(({ addresses = [], ports = [] }) =>
          addresses.flatMap(({ ip }) => ports.map(({ port }) => `${ip}:${port}`)),
        ),
      ),
    ),
  ],
  'Namespace.': [column<WithPhase>('Status', ({ status }) => status?.phase ?? 'Active')],
  'ConfigMap.': [number<WithData>('Data', ({ data, binaryData }) => Object.keys({ ...data, ...binaryData }).length)],
  'Lease.coordination.k8s.io': [column<Lease>('Holder', ({ spec }) => spec?.holderIdentity)],
  'Deployment.apps': [
    column<Scaled>('Ready', ({ spec, status }) => `${status?.['readyReplicas'] ?? 0}/${spec?.replicas ?? 1}`),
    number<Scaled>('Up-to-date', ({ status }) => status?.['updatedReplicas']),
    number<Scaled>('Available', ({ status }) => status?.['availableReplicas']),
  ],
  'StatefulSet.apps': [
    column<Scaled>('Ready', ({ spec, status }) => `${status?.['readyReplicas'] ?? 0}/${spec?.replicas ?? 1}`),
  ],
  'DaemonSet.apps': [
    number<Scaled>('Desired', ({ status }) => status?.['desiredNumberScheduled']),
    number<Scaled>('Ready', ({ status }) => status?.['numberReady']),
    column<Scaled>('Node Selector', ({ spec }) => pairs(spec?.template?.spec?.nodeSelector)),
  ],
  'NodePool.apps.openyurt.io': [
    column<NodePool>('Type', ({ spec }) => spec?.type),
    column<NodePool>('InterConnectivity', ({ spec }) => String(spec?.interConnectivity ?? NONE)),
  ],
  'Gateway.raven.openyurt.io': [
    column<RavenGateway>('Endpoints', ({ spec }) => some(spec?.endpoints?.map(({ nodeName }) => nodeName) ?? [])),
  ],
}

const SECOND_MS = 1_000
const MINUTE_MS = 60 * SECOND_MS
const HOUR_MS = 60 * MINUTE_MS
const DAY_MS = 24 * HOUR_MS
const YEAR_MS = 365 * DAY_MS

/** As kubectl writes ages (k8s.io/apimachinery duration.HumanDuration): two units where one would be too rough. */
export function ageText(ms: number): string {
  const two = (unitMs: number, unit: string, restMs: number, restUnit: string): string => {
    const rest = Math.floor((ms % unitMs) / restMs)
    return `${Math.floor(ms / unitMs)}${unit}${rest === 0 ? '' : `${rest}${restUnit}`}`
  }
  if (ms < 2 * MINUTE_MS) return `${Math.max(0, Math.floor(ms / SECOND_MS))}s`
  if (ms < 10 * MINUTE_MS) return two(MINUTE_MS, 'm', SECOND_MS, 's')
  if (ms < 3 * HOUR_MS) return `${Math.floor(ms / MINUTE_MS)}m`
  if (ms < 8 * HOUR_MS) return two(HOUR_MS, 'h', MINUTE_MS, 'm')
  if (ms < 2 * DAY_MS) return `${Math.floor(ms / HOUR_MS)}h`
  if (ms < 8 * DAY_MS) return two(DAY_MS, 'd', HOUR_MS, 'h')
  if (ms < 2 * YEAR_MS) return `${Math.floor(ms / DAY_MS)}d`
  if (ms < 8 * YEAR_MS) return two(YEAR_MS, 'y', DAY_MS, 'd')
  return `${Math.floor(ms / YEAR_MS)}y`
}
