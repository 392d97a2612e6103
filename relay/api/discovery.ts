// Discovery: which groups, versions and resources there are, as /version, /api, /apis and below answer it.

import { KINDS, type Kind } from './kinds.ts'
import { AUTHENTICATION_GROUP, AUTHENTICATION_VERSION, TOKEN_REVIEWS } from './service-accounts.ts'
import { METRICS_GROUP, METRICS_VERSION } from './metrics.ts'

/** The Kubernetes whose API this follows: clients look at it to know what they may ask. */
const KUBERNETES = { major: '1', minor: '32' }

const READ = ['get', 'list', 'watch']
const WRITE = ['create', 'patch', 'update']

/** Documents by path without a trailing slash. @param version of Fulmar. @param metrics whether there is a metrics API. */
export function discoveryDocuments(version: string, metrics: boolean): Readonly<Record<string, object>> {
  const groups = Map.groupBy(KINDS, ({ group }) => group)
  const named = [...groups.keys()].filter((group) => group !== '')
  const groupObject = (name: string) => {
    const versions = [...new Set(groups.get(name)!.map((kind) => kind.version))].map((each) => ({
      groupVersion: `${name}/${each}`,
      version: each,
    }))
    return { name, versions, preferredVersion: versions[0]! }
  }
  return {
    '/version': {
      ...KUBERNETES,
      gitVersion: `v${KUBERNETES.major}.${KUBERNETES.minor}.0+fulmar-${version}`,
      gitCommit: '',
      gitTreeState: '',
      buildDate: '1970-01-01T00:00:00Z',
      goVersion: '',
      compiler: '',
      platform: '',
    },
    '/api': { kind: 'APIVersions', versions: ['v1'], serverAddressByClientCIDRs: [] },
    '/apis': {
      kind: 'APIGroupList',
      apiVersion: 'v1',
      groups: [...named.map(groupObject), AUTHENTICATION, ...(metrics ? [METRICS] : [])],
    },
    [`/apis/${AUTHENTICATION_GROUP}`]: { kind: 'APIGroup', apiVersion: 'v1', ...AUTHENTICATION },
    [`/apis/${AUTHENTICATION_VERSION}`]: AUTHENTICATION_RESOURCES,
    ...(metrics && {
      [`/apis/${METRICS_GROUP}`]: { kind: 'APIGroup', apiVersion: 'v1', ...METRICS },
      [`/apis/${METRICS_VERSION}`]: METRICS_RESOURCES,
    }),
    '/api/v1': resourceList('v1', groups.get('')!),
    ...Object.fromEntries(
      named.map((name) => [`/apis/${name}`, { kind: 'APIGroup', apiVersion: 'v1', ...groupObject(name) }]),
    ),
    ...Object.fromEntries(
      [...Map.groupBy(KINDS, ({ group, version: each }) => `${group}/${each}`)]
        .filter(([groupVersion]) => !groupVersion.startsWith('/'))
        .map(([groupVersion, kinds]) => [`/apis/${groupVersion}`, resourceList(groupVersion, kinds)]),
    ),
  }
}

const onlyVersion = (name: string, groupVersion: string) => {
  const served = { groupVersion, version: groupVersion.split('/')[1]! }
  return { name, versions: [served], preferredVersion: served }
}
const METRICS = onlyVersion(METRICS_GROUP, METRICS_VERSION)
const AUTHENTICATION = onlyVersion(AUTHENTICATION_GROUP, AUTHENTICATION_VERSION)
const AUTHENTICATION_RESOURCES = {
  kind: 'APIResourceList',
  apiVersion: 'v1',
  groupVersion: AUTHENTICATION_VERSION,
  resources: [{ name: TOKEN_REVIEWS, singularName: '', namespaced: false, kind: 'TokenReview', verbs: ['create'] }],
}
const METRICS_RESOURCES = {
  kind: 'APIResourceList',
  apiVersion: 'v1',
  groupVersion: METRICS_VERSION,
  resources: [
    { name: 'nodes', singularName: '', namespaced: false, kind: 'NodeMetrics', verbs: ['get', 'list'] },
    { name: 'pods', singularName: '', namespaced: true, kind: 'PodMetrics', verbs: ['get', 'list'] },
  ],
}

/** What the node's kubelet answers, and the tokens of pods. */
const ACTIONS: Readonly<Record<string, readonly (readonly [name: string, verbs: readonly string[], kind: string])[]>> =
  {
    Pod: [
      ['log', ['get'], 'Pod'],
      ['exec', ['create', 'get'], 'PodExecOptions'],
      ['attach', ['create', 'get'], 'PodAttachOptions'],
      ['portforward', ['create', 'get'], 'PodPortForwardOptions'],
    ],
    ServiceAccount: [['token', ['create'], 'TokenRequest']],
    Node: [['proxy', ['create', 'delete', 'get', 'patch', 'update'], 'NodeProxyOptions']],
  }

const resourceList = (groupVersion: string, kinds: readonly Kind[]) => ({
  kind: 'APIResourceList',
  apiVersion: 'v1',
  groupVersion,
  resources: kinds.flatMap(({ plural, singular, namespaced, kind, shortNames, writable }) => [
    {
      name: plural,
      singularName: singular,
      namespaced,
      kind,
      verbs: writable === 'objects' ? [...READ, ...WRITE] : READ,
      ...(shortNames.length > 0 && { shortNames }),
    },
    ...(ACTIONS[groupVersion === 'v1' ? kind : ''] ?? []).map(([name, verbs, optionsKind]) => ({
      name: `${plural}/${name}`,
      singularName: '',
      namespaced,
      kind: optionsKind,
      verbs,
    })),
    ...(writable === 'status'
      ? [{ name: `${plural}/status`, singularName: '', namespaced, kind, verbs: ['get', 'patch', 'update'] }]
      : []),
  ]),
})
