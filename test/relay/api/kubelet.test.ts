import t from 'tap'
import type { Identity } from '../../../lib/identity.ts'
import type { KubernetesObject } from '../../../lib/k8s/objects.ts'
import { isForKubelet, mayUseKubelet, planKubeletCall, type Lookup } from '../../../relay/api/kubelet.ts'
import { mayUpgrade, parseRequest, type ResourceRequest } from '../../../relay/api/request.ts'

const node = (name: string, status = {}): KubernetesObject => ({ kind: 'Node', metadata: { name }, ...status })
const pod = (name: string, nodeName: string | undefined, ...containers: readonly string[]): KubernetesObject =>
  ({
    kind: 'Pod',
    metadata: { name, namespace: 'shop' },
    spec: { nodeName, containers: containers.map((container) => ({ name: container })) },
  }) as KubernetesObject

const objects: readonly KubernetesObject[] = [
  node('edge'),
  node('far', { status: { daemonEndpoints: { kubeletEndpoint: { Port: 10350 } } } }),
  pod('one', 'edge', 'web'),
  pod('two', 'far', 'web', 'side'),
  pod('pending', undefined, 'web'),
  {
    kind: 'Pod',
    metadata: { name: 'late', namespace: 'shop' },
    spec: { nodeName: 'edge', containers: [{ name: 'web' }], initContainers: [{ name: 'init' }] },
  } as KubernetesObject,
  pod('lost', 'gone', 'web'),
]
const get: Lookup = ({ kind }, _namespace, name) =>
  objects.find((object) => object.kind === kind && object.metadata?.name === name)

const asked = (path: string, method = 'GET'): ResourceRequest => {
  const request = parseRequest(method, path)
  if (request.kind !== 'resource') throw new Error(`${path} is ${request.kind}`)
  return request
}

const pods = '/api/v1/namespaces/shop/pods'
const calls: readonly (readonly [path: string, wanted: string])[] = [
  [`${pods}/one/log`, 'edge:10250 /containerLogs/shop/one/web'],
  [
    `${pods}/one/log?follow=true&tailLines=3&container=web&evil=1&sinceTime=2026-01-02T03%3A04%3A05%2B01%3A00`,
    'edge:10250 /containerLogs/shop/one/web?follow=true&sinceTime=2026-01-02T03%3A04%3A05%2B01%3A00&tailLines=3',
  ],
  [
    `${pods}/two/exec?container=side&command=sh&command=-c&command=a%20%26%20b&stdin=true&stdout=true&stderr=false&tty=true`,
    'far:10350 /exec/shop/two/side?command=sh&command=-c&command=a+%26+b&input=1&output=1&tty=1',
  ],
  [`${pods}/two/attach?container=web&stdout=true&stderr=true`, 'far:10350 /attach/shop/two/web?output=1&error=1'],
  [`${pods}/one/portforward?ports=80&container=x`, 'edge:10250 /portForward/shop/one?ports=80'],
  ['/api/v1/nodes/far/proxy', 'far:10350 /'],
  ['/api/v1/nodes/far/proxy/', 'far:10350 /'],
  ['/api/v1/nodes/far/proxy/metrics/resource?a=b&watch=true', 'far:10350 /metrics/resource?a=b&watch=true'],
  ['/api/v1/nodes/far/proxy/a%2Fb//c', 'far:10350 /a%2Fb//c'],
  [`${pods}/late/log`, 'edge:10250 /containerLogs/shop/late/web'],
  [`${pods}/late/log?container=init`, 'edge:10250 /containerLogs/shop/late/init'],
  [`${pods}/two/log`, '400 a container name must be specified for pod two, choose one of: [web side]'],
  [`${pods}/two/log?container=none`, '400 container none is not valid for pod two'],
  [`${pods}/pending/log`, '400 pod pending does not have a host assigned'],
  [`${pods}/lost/log`, '400 pod lost is on node gone, and there is no node of this name'],
  [`${pods}/none/log`, '404 pods "none" not found'],
  ['/api/v1/nodes/none/proxy/pods', '404 nodes "none" not found'],
]
for (const [path, wanted] of calls)
  t.test(path, async (t) => {
    t.ok(isForKubelet(asked(path)))
    const plan = planKubeletCall(asked(path), get)
    t.equal(
      plan.kind === 'call' ? `${plan.node}:${plan.port} ${plan.path}` : `${plan.failure.code} ${plan.failure.message}`,
      wanted,
    )
  })

t.test('what is not the kubelet’s', async (t) => {
  for (const path of [`${pods}/one`, `${pods}/one/status`, '/api/v1/nodes/edge/status', '/api/v1/nodes', pods])
    t.notOk(isForKubelet(asked(path)), path)
})

const ADMIN: Identity = { kind: 'user', user: 'admin', groups: ['system:masters'] }
const USER: Identity = { kind: 'user', user: 'ann', groups: ['viewers'] }
const NODE: Identity = { kind: 'node', node: 'edge' }
const NOBODY: Identity = { kind: 'anonymous' }
const rights: readonly (readonly [path: string, who: string])[] = [
  [`${pods}/one/log`, 'admin ann'],
  [`${pods}/one/exec`, 'admin'],
  [`${pods}/one/attach`, 'admin'],
  [`${pods}/one/portforward`, 'admin'],
  ['/api/v1/nodes/edge/proxy/metrics', 'admin'],
]
for (const [path, who] of rights)
  t.test(`who may ${path}`, async (t) => {
    const may = [ADMIN, USER, NODE, NOBODY].filter((caller) => mayUseKubelet(caller, asked(path)))
    t.equal(may.map((caller) => (caller.kind === 'user' ? caller.user : caller.kind)).join(' '), who)
  })

t.test('where a connection may go on in another protocol', async (t) => {
  for (const path of [
    `${pods}/one/exec`,
    `${pods}/one/portforward`,
    '/api/v1/nodes/a/proxy',
    '/api/v1/nodes/a/proxy/exec/x',
  ])
    t.ok(mayUpgrade(path), path)
  for (const path of [`${pods}/one/log`, pods, '/api/v1/nodes/a', '/fulmar/v1/signal', `${pods}/one/exec/more`])
    t.notOk(mayUpgrade(path), path)
})
