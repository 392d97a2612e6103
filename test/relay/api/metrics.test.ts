import t from 'tap'
import type { KubernetesObject, Pod } from '../../../lib/k8s/objects.ts'
import { chosen, nodeMetrics, parseMetricsRequest, podMetrics, readSummary } from '../../../relay/api/metrics.ts'

const at = '/apis/metrics.k8s.io/v1beta1'
const requests: readonly (readonly [path: string, wanted: string])[] = [
  [`${at}/nodes`, 'nodes / *'],
  [`${at}/nodes/edge?labelSelector=a%3Db`, 'nodes / edge a=b'],
  [`${at}/pods`, 'pods / *'],
  [`${at}/namespaces/shop/pods`, 'pods shop/ *'],
  [`${at}/namespaces/shop/pods/web`, 'pods shop/ web'],
  [`${at}/namespaces/shop/nodes`, 'none'],
  [`${at}/pods/a/b`, 'none'],
  [at, 'none'],
  ['/api/v1/nodes', 'none'],
]
for (const [path, wanted] of requests)
  t.test(path, async (t) => {
    const request = parseMetricsRequest(path)
    const { resource, namespace = '', name = '*', labelSelector = '' } = request ?? {}
    t.equal(request === undefined ? 'none' : `${resource} ${namespace}/ ${name} ${labelSelector}`.trim(), wanted)
  })

const summary = (node: unknown, pods: unknown = []) => JSON.stringify({ node, pods })
const cpu = { time: '2026-01-02T03:04:05Z', usageNanoCores: 250_000_000 }
const usages: readonly (readonly [title: string, text: string, wanted: object | undefined])[] = [
  ['a node', summary({ cpu, memory: { workingSetBytes: 2049 } }), { node: { nanoCores: 250_000_000, bytes: 2049 } }],
  [
    'figures that are none',
    summary({ cpu: { ...cpu, usageNanoCores: 'x' }, memory: { workingSetBytes: -1 } }),
    { node: { nanoCores: 0, bytes: 0 } },
  ],
  ['pods that are none', summary({ cpu }, 7), { pods: [] }],
  ['without a time', summary({ cpu: { usageNanoCores: 1 } }), undefined],
  ['null', 'null', undefined],
  ['no JSON', '<html>', undefined],
]
for (const [title, text, wanted] of usages)
  t.test(title, async (t) => {
    const usage = readSummary(text)
    if (wanted === undefined) t.equal(usage, undefined)
    else t.match(usage, wanted)
  })

t.test('objects', async (t) => {
  const pods = [
    {
      podRef: { name: 'web', namespace: 'shop' },
      containers: [{ name: 'a', cpu, memory: { workingSetBytes: 1 << 20 } }],
    },
  ]
  const usage = readSummary(summary({ cpu, memory: { workingSetBytes: 2049 } }, pods))!
  const labels = { app: 'web' }
  t.match(nodeMetrics({ metadata: { name: 'edge', labels } }, usage), {
    kind: 'NodeMetrics',
    metadata: { name: 'edge', labels },
    timestamp: cpu.time,
    usage: { cpu: '250000000n', memory: '3Ki' },
  })
  const web = { metadata: { name: 'web', namespace: 'shop', labels } } as Pod
  t.match(podMetrics(web, usage), { containers: [{ name: 'a', usage: { cpu: '250000000n', memory: '1024Ki' } }] })
  t.equal(podMetrics({ metadata: { name: 'web', namespace: 'other' } }, usage), undefined)
  const all: readonly KubernetesObject[] = [web, { metadata: { name: 'db', namespace: 'shop' } }]
  const names = (query: string) =>
    chosen(all, parseMetricsRequest(`${at}/${query}`)!).map(({ metadata }) => metadata?.name)
  t.same(names('pods'), ['web', 'db'])
  t.same(names('pods?labelSelector=app%3Dweb'), ['web'])
  t.same(names('namespaces/other/pods'), [])
  t.same(names('namespaces/shop/pods/db'), ['db'])
})
