import t from 'tap'
import { planDryRun } from '../../../relay/api/dry-run.ts'
import type { Json } from '../../../relay/api/patch.ts'
import { parseRequest } from '../../../relay/api/request.ts'

const PATH = '/apis/apps/v1/namespaces/fulmar-system/daemonsets'
const ONE = `PATCH ${PATH}/agent?dryRun=All`
const APPLY = 'application/apply-patch+yaml'
const daemonSet = { apiVersion: 'apps/v1', kind: 'DaemonSet', metadata: { name: 'agent', namespace: 'fulmar-system' } }
const role = { apiVersion: 'rbac.authorization.k8s.io/v1', kind: 'ClusterRole', metadata: { name: 'agent' } }
const ROLE = 'PATCH /apis/rbac.authorization.k8s.io/v1/clusterroles/agent?dryRun=All'

type Row = readonly [
  name: string,
  line: string,
  body: Json,
  answer: object,
  more?: { readonly known?: object; readonly contentType?: string; readonly hasNamespace?: boolean },
]
const taken = (created: boolean) => ({ kind: 'taken', created })
const refused = (code: number, message: RegExp) => ({ kind: 'refused', failure: { code, message } })
const rows: readonly Row[] = [
  ['a new one', ONE, daemonSet, { ...taken(true), object: daemonSet }],
  [
    'its namespace is the URL’s',
    ONE,
    { ...daemonSet, metadata: { name: 'agent' } },
    { ...taken(true), object: daemonSet },
  ],
  ['of the cluster', ROLE, role, { ...taken(true), object: role }],
  ['one that is there', ONE, daemonSet, taken(false), { known: daemonSet }],
  ['a create', `POST ${PATH}?dryRun=All`, daemonSet, taken(true), { contentType: 'application/json' }],
  [
    'a merge patch',
    ONE,
    { spec: { x: 1 } },
    { ...taken(false), object: { spec: { x: 1 } } },
    { known: daemonSet, contentType: 'application/merge-patch+json' },
  ],
  [
    'a create of what is there',
    `POST ${PATH}?dryRun=All`,
    daemonSet,
    refused(409, /already exists/),
    { known: daemonSet },
  ],
  ['an update of what is not', `PUT ${PATH}/agent?dryRun=All`, daemonSet, refused(404, /not found/)],
  ['no such namespace', ONE, daemonSet, refused(404, /namespaces "fulmar-system" not found/), { hasNamespace: false }],
  [
    'another kind',
    ONE,
    { ...daemonSet, kind: 'Deployment' },
    refused(400, /is a Deployment of apps\/v1, and not apps\/v1 DaemonSet/),
  ],
  [
    'another version',
    ONE,
    { ...daemonSet, apiVersion: 'apps/v1beta1' },
    refused(422, /apiVersion "apps\/v1beta1" has no DaemonSet/),
  ],
  ['no kind', ONE, { metadata: { name: 'agent' } }, refused(422, /has no kind/)],
  [
    'another name',
    ONE,
    { ...daemonSet, metadata: { name: 'x' } },
    refused(400, /\(x\) does not match the name on the URL \(agent\)/),
  ],
  [
    'another namespace',
    ONE,
    { ...daemonSet, metadata: { name: 'agent', namespace: 'x' } },
    refused(400, /\("x"\) does not match/),
  ],
  [
    'a name that is none',
    `PATCH ${PATH}/A_B?dryRun=All`,
    { ...daemonSet, metadata: { name: 'A_B' } },
    refused(422, /no DNS name/),
  ],
  [
    'a label that is no text',
    ONE,
    { ...daemonSet, metadata: { name: 'agent', labels: { a: 1 } } },
    refused(422, /metadata.labels.a 1 is not text/),
  ],
  ['no object', ONE, [daemonSet], refused(400, /no JSON object/)],
  ['a type that is not known', ONE, daemonSet, refused(415, /text\/plain/), { contentType: 'text/plain' }],
  ['a status', `PATCH ${PATH}/agent/status?dryRun=All`, daemonSet, refused(405, /dry run of patch/)],
  ['a removal', `DELETE ${PATH}/agent?dryRun=All`, {}, refused(405, /dry run of delete/)],
  ['another value', `PATCH ${PATH}/agent?dryRun=Some`, daemonSet, refused(422, /dryRun="Some"/)],
]
for (const [name, line, body, answer, { known, contentType = APPLY, hasNamespace = true } = {}] of rows) {
  const [method = '', target = ''] = line.split(' ')
  const asked = parseRequest(method, target)
  if (asked.kind !== 'resource') throw new Error(line)
  const plan = planDryRun(asked, { name: asked.name ?? 'agent', known, hasNamespace, body, contentType })
  t.match(plan, answer, name)
}
