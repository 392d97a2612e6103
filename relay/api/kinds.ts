// The kinds of objects that the embedded API serves: the built-in ones that a folder of a cluster is likely to hold, and
// those of OpenYurt. The table is fixed, so that discovery says the same whatever the folder holds today.

import { NODE_POOLS, type Resource } from '../../lib/k8s/objects.ts'

export type Kind = Resource & {
  readonly singular: string
  readonly shortNames: readonly string[]
  /** What may be written, by those who may: the status of an object of the folder, or whole objects. */
  readonly writable: 'nothing' | 'status' | 'objects'
}

type Entry = readonly [kind: string, plural: string, shortNames?: string]
const CLUSTER = false
const NAMESPACED = true

const TABLE: readonly (readonly [group: string, version: string, namespaced: boolean, entries: readonly Entry[]])[] = [
  [
    '',
    'v1',
    CLUSTER,
    [
      ['Node', 'nodes', 'no'],
      ['Namespace', 'namespaces', 'ns'],
      ['PersistentVolume', 'persistentvolumes', 'pv'],
    ],
  ],
  [
    '',
    'v1',
    NAMESPACED,
    [
      ['Pod', 'pods', 'po'],
      ['Service', 'services', 'svc'],
      ['Endpoints', 'endpoints', 'ep'],
      ['ConfigMap', 'configmaps', 'cm'],
      ['ServiceAccount', 'serviceaccounts', 'sa'],
      ['Event', 'events', 'ev'],
      ['LimitRange', 'limitranges', 'limits'],
      ['ResourceQuota', 'resourcequotas', 'quota'],
      ['ReplicationController', 'replicationcontrollers', 'rc'],
      ['PersistentVolumeClaim', 'persistentvolumeclaims', 'pvc'],
    ],
  ],
  ['discovery.k8s.io', 'v1', NAMESPACED, [['EndpointSlice', 'endpointslices']]],
  ['coordination.k8s.io', 'v1', NAMESPACED, [['Lease', 'leases']]],
  [
    'apps',
    'v1',
    NAMESPACED,
    [
      ['Deployment', 'deployments', 'deploy'],
      ['DaemonSet', 'daemonsets', 'ds'],
      ['StatefulSet', 'statefulsets', 'sts'],
      ['ReplicaSet', 'replicasets', 'rs'],
    ],
  ],
  [
    'batch',
    'v1',
    NAMESPACED,
    [
      ['Job', 'jobs'],
      ['CronJob', 'cronjobs', 'cj'],
    ],
  ],
  [
    'networking.k8s.io',
    'v1',
    NAMESPACED,
    [
      ['Ingress', 'ingresses', 'ing'],
      ['NetworkPolicy', 'networkpolicies', 'netpol'],
    ],
  ],
  ['networking.k8s.io', 'v1', CLUSTER, [['IngressClass', 'ingressclasses']]],
  ['policy', 'v1', NAMESPACED, [['PodDisruptionBudget', 'poddisruptionbudgets', 'pdb']]],
  [
    'rbac.authorization.k8s.io',
    'v1',
    NAMESPACED,
    [
      ['Role', 'roles'],
      ['RoleBinding', 'rolebindings'],
    ],
  ],
  [
    'rbac.authorization.k8s.io',
    'v1',
    CLUSTER,
    [
      ['ClusterRole', 'clusterroles'],
      ['ClusterRoleBinding', 'clusterrolebindings'],
    ],
  ],
  ['storage.k8s.io', 'v1', CLUSTER, [['StorageClass', 'storageclasses', 'sc']]],
  ['scheduling.k8s.io', 'v1', CLUSTER, [['PriorityClass', 'priorityclasses', 'pc']]],
  ['apiextensions.k8s.io', 'v1', CLUSTER, [['CustomResourceDefinition', 'customresourcedefinitions', 'crd,crds']]],
  ['apps.openyurt.io', 'v1beta2', CLUSTER, [['NodePool', 'nodepools', 'np']]],
  ['raven.openyurt.io', 'v1beta1', CLUSTER, [['Gateway', 'gateways', 'gw']]],
]

/** Objects of these versions are taken for the one that is served. */
const OLDER_VERSIONS: Readonly<Record<string, readonly string[] | undefined>> = { NodePool: NODE_POOLS.olderVersions }
const WRITABLE: Readonly<Record<string, Kind['writable']>> = { Node: 'status', Lease: 'objects' }

export const KINDS: readonly Kind[] = TABLE.flatMap(([group, version, namespaced, entries]) =>
  entries.map(([kind, plural, shortNames = '']) => ({
    group,
    version,
    namespaced,
    kind,
    plural,
    singular: kind.toLowerCase(),
    shortNames: shortNames === '' ? [] : shortNames.split(','),
    olderVersions: OLDER_VERSIONS[kind] ?? [],
    writable: WRITABLE[kind] ?? 'nothing',
  })),
)

const byPlural = new Map(KINDS.map((kind) => [`${kind.group}/${kind.version}/${kind.plural}`, kind]))
const byKind = Map.groupBy(KINDS, ({ kind }) => kind)

export const kindOf = (group: string, version: string, plural: string): Kind | undefined =>
  byPlural.get(`${group}/${version}/${plural}`)
export const kindsNamed = (kind: string): readonly Kind[] => byKind.get(kind) ?? []
/** The single kind of that name; for names that the code itself uses. */
export const builtIn = (kind: string): Kind => kindsNamed(kind)[0]!

export const apiVersionOf = ({ group, version }: Resource): string => (group === '' ? version : `${group}/${version}`)
/** `nodes`, `leases.coordination.k8s.io`: how Kubernetes names a resource in messages. */
export const resourceNameOf = ({ group, plural }: Resource): string => (group === '' ? plural : `${plural}.${group}`)
export const resourceKeyOf = ({ group, version, plural }: Resource): string => `${group}/${version}/${plural}`
