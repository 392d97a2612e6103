// What the kinds are served by, as text.

import t from 'tap'
import { balanceOf } from '../../../agent/balance.ts'
import { clusterOf } from '../../../agent/cluster.ts'
import { hereOf } from '../../../agent/topology.ts'
import {
  clusterObjects,
  ENDPOINTS,
  NODE,
  OTHER_SERVICES,
  POD_CIDR,
  SERVICE_CIDR,
} from '../../../bench/service/cluster.ts'
import { kubeProxyTable } from '../../../bench/service/kube-proxy.ts'
import { proxyProgram } from '../../../bench/service/proxies.ts'

const cluster = clusterOf(clusterObjects('10.244.11.0/24'))
const { services: sorted, problems } = balanceOf({ cluster, here: hereOf(cluster, NODE) })
const services = [...sorted]
const table = kubeProxyTable({ services, podCidr: POD_CIDR, serviceCidr: SERVICE_CIDR, nodeAddress: '10.244.11.1' })
const count = (text: string, pattern: RegExp): number => text.match(pattern)?.length ?? 0

t.test('the cluster', async (t) => {
  t.same([...cluster.problems, ...problems], [])
  t.equal(services.length, OTHER_SERVICES + 1)
  const frontends = services.flatMap(({ frontends }) => frontends)
  t.equal(new Set(frontends.map(({ address, port }) => `${address}:${port}`)).size, services.length + 1)
  const targets = frontends.flatMap(({ targets }) => targets.map(({ address, port }) => `${address}:${port}`))
  t.equal(new Set(targets).size, ENDPOINTS.length * (services.length + 1), 'nobody shares an endpoint')
})

t.test('kube-proxy’s chains', async (t) => {
  t.equal(count(table, /^ {2}chain service-[0-9A-F]{8}-/gm), services.length + 1)
  t.equal(count(table, /^ {2}chain endpoint-[0-9A-F]{8}-/gm), ENDPOINTS.length * (services.length + 1))
  const service = /^ {2}chain (service-\S+bench\/measured\/tcp\/echo) \{\n([^}]+\}[^}]+)\}/m.exec(table)!
  t.match(table, `10.96.0.1 . tcp . 80 : goto ${service[1]}`)
  t.match(service[2], /ip saddr != 10\.244\.0\.0\/15 jump mark-for-masquerade/)
  t.match(
    service[2],
    /numgen random mod 3 vmap \{ 0 : goto endpoint-\S+, 1 : goto endpoint-\S+, 2 : goto endpoint-\S+ \}/,
  )
  t.match(table, /chain endpoint-\S+10\.244\.2\.2\/8080 \{\n.*\n +meta l4proto tcp dnat to 10\.244\.2\.2:8080\n/)
})

t.test('proxies know the endpoints', async (t) => {
  for (const kind of ['haproxy', 'nginx'] as const) {
    const [text] = Object.values(proxyProgram(kind, '/run/x', undefined).files)
    for (const address of ENDPOINTS) t.match(text, `${address}:8080`)
    t.match(text, '10.96.0.1:81')
  }
  t.match(proxyProgram('nginx', '/run/x', '/modules').files['nginx.conf'], /^load_module \/modules\//)
})
