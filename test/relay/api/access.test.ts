import t from 'tap'
import type { Identity } from '../../../lib/identity.ts'
import { forbidden, mayAccess, ownsLease } from '../../../relay/api/access.ts'
import { parseRequest, type ResourceRequest } from '../../../relay/api/request.ts'

const NODES = ['a', 'a-b', 'b', 'c']
const node: Identity = { kind: 'node', node: 'a' }
const admin: Identity = { kind: 'user', user: 'root', groups: ['system:masters'] }
const user: Identity = { kind: 'user', user: 'eve', groups: ['others'] }
const leases = '/apis/coordination.k8s.io/v1/namespaces/kube-node-lease/leases'
const ask = (line: string): ResourceRequest => {
  const [method = '', target = ''] = line.split(' ')
  const request = parseRequest(method, target)
  if (request.kind !== 'resource') throw new Error(`${line} is no resource`)
  return request
}

const rows: readonly (readonly [string, Identity, string, boolean])[] = [
  ['anonymous reads nothing', { kind: 'anonymous' }, 'GET /api/v1/nodes', false],
  ['a node reads', node, 'GET /api/v1/pods', true],
  ['a user reads', user, 'GET /api/v1/pods?watch=1', true],
  ['a node patches its own status', node, 'PATCH /api/v1/nodes/a/status', true],
  ['a node puts its own status', node, 'PUT /api/v1/nodes/a/status', true],
  ['not that of another', node, 'PATCH /api/v1/nodes/c/status', false],
  ['not its own labels', node, 'PATCH /api/v1/nodes/a', false],
  ['a node renews its lease', node, `PATCH ${leases}/a`, true],
  ['and one that begins with its name', node, `PUT ${leases}/a-gateway`, true],
  ['and one that ends with it', node, `PUT ${leases}/pool-a`, true],
  ['but not that of a node whose name begins with its own', node, `PUT ${leases}/a-b`, false],
  ['nor one of a stranger', node, `PUT ${leases}/c`, false],
  ['nor in a namespace of the folder', node, 'PUT /apis/coordination.k8s.io/v1/namespaces/shop/leases/a', false],
  ['nor does it delete', node, `DELETE ${leases}/a`, false],
  ['a user writes nothing', user, 'PATCH /api/v1/nodes/a/status', false],
  ['masters write any', admin, 'PATCH /api/v1/nodes/c/status', true],
]
for (const [name, caller, line, allowed] of rows) {
  const request = ask(line)
  t.equal(mayAccess(caller, request, request.name ?? '', NODES), allowed, `${name}: ${line}`)
}

t.ok(ownsLease('ghost', 'ghost-1', NODES), 'a node that has no object yet')
t.equal(
  forbidden(node, ask('PATCH /api/v1/nodes/c/status'), 'c').message,
  'nodes "c" is forbidden: User "system:node:a" cannot patch resource "nodes/status" in API group "" at the cluster scope',
)
t.equal(
  forbidden(user, ask(`PUT ${leases}/c`), 'c').message,
  'leases.coordination.k8s.io "c" is forbidden: User "eve" cannot update resource "leases" in API group "coordination.k8s.io" in the namespace "kube-node-lease"',
)

const paths: readonly (readonly [string, string])[] = [
  ['GET /api/v1/nodes', 'list nodes ///'],
  ['GET /api/v1/nodes/a', 'get nodes //a/'],
  ['GET /api/v1/namespaces/shop', 'get namespaces //shop/'],
  ['GET /api/v1/namespaces/shop/status', 'get namespaces //shop/status'],
  ['GET /api/v1/namespaces/shop/pods', 'list pods /shop//'],
  ['GET /api/v1/namespaces/shop/pods/p?watch=true', 'watch pods /shop/p/'],
  ['POST /apis/coordination.k8s.io/v1/namespaces/x/leases', 'create leases /x//'],
  ['GET /api/v1/pods/p', 'nothing'],
  ['GET /api/v1/nope', 'nothing'],
  ['GET /apis/apps/v2/deployments', 'nothing'],
  ['GET /api/v1/nodes/a/status/b', 'nothing'],
  ['GET /api/v1/%zz/a', 'nothing'],
  ['GET //api/v1', 'document /api/v1'],
  ['GET /apis/', 'document /apis'],
  ['GET /', 'document /'],
  ['OPTIONS /api/v1/nodes', 'nothing'],
]
for (const [line, expected] of paths) {
  const [method = '', target = ''] = line.split(' ')
  const got = parseRequest(method, target)
  const text =
    got.kind === 'resource'
      ? `${got.verb} ${got.resource.plural} /${got.namespace}/${got.name ?? ''}/${got.subresource ?? ''}`
      : got.kind === 'document'
        ? `document ${got.path}`
        : 'nothing'
  t.equal(text, expected, line)
}
