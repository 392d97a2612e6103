import t from 'tap'
import { counter, counterFrom, createRegistry, gauge, gaugeFrom, gaugesFrom, histogram } from '../../lib/metrics.ts'

/** The sample lines of one metric. */
const samples = async (registry: ReturnType<typeof createRegistry>, name: string): Promise<string[]> =>
  (await registry.text()).split('\n').filter((line) => line.startsWith(name))

t.test('every maker shows in the text', async (t) => {
  const registry = createRegistry('agent')
  const queries = counter(registry, 'fulmar_dns_queries_total', 'Queries', { rcode: ['NOERROR', 'NXDOMAIN'] })
  queries.add(2, { rcode: 'NOERROR' })
  queries.add(1, { rcode: 'NXDOMAIN' })
  gauge(registry, 'fulmar_services', 'Services').set(7)
  histogram(registry, 'fulmar_apply_seconds', 'Apply', {}, [0.1, 1]).observe(0.5)
  let packets = 3
  counterFrom(registry, 'fulmar_packets_total', 'Packets', () => packets)
  gaugeFrom(registry, 'fulmar_queue_bytes', 'Queue', () => 11)
  await registry.text()
  packets = 5

  t.match((await samples(registry, 'fulmar_build_info'))[0], /daemon="agent",version="\d+\.\d+\.\d+"} 1$/)
  t.same(await samples(registry, 'fulmar_dns_queries_total'), [
    'fulmar_dns_queries_total{rcode="NOERROR"} 2',
    'fulmar_dns_queries_total{rcode="NXDOMAIN"} 1',
  ])
  t.same(await samples(registry, 'fulmar_services'), ['fulmar_services 7'])
  t.same(await samples(registry, 'fulmar_packets_total'), ['fulmar_packets_total 5'], 'read anew at each scrape')
  t.same(await samples(registry, 'fulmar_queue_bytes'), ['fulmar_queue_bytes 11'])
  t.ok((await samples(registry, 'fulmar_apply_seconds_bucket')).includes('fulmar_apply_seconds_bucket{le="1"} 1'))
})

t.test('labels cannot grow with their input', async (t) => {
  const registry = createRegistry('relay')
  const byPool = counter(registry, 'fulmar_calls_total', 'Calls', { pool: 2 })
  for (const pool of ['hamburg', 'sylt', 'kiel', 'hamburg', 'husum']) byPool.add(1, { pool })
  t.same(await samples(registry, 'fulmar_calls_total'), [
    'fulmar_calls_total{pool="hamburg"} 2',
    'fulmar_calls_total{pool="sylt"} 1',
    'fulmar_calls_total{pool="other"} 2',
  ])
  const byRung = gauge(registry, 'fulmar_paths', 'Paths', { rung: ['direct'] })
  byRung.set(1, { rung: 'nonsense' as 'direct' })
  t.same(await samples(registry, 'fulmar_paths'), ['fulmar_paths{rung="other"} 1'])
  byRung.clear()
  t.same(await samples(registry, 'fulmar_paths'), [])
})

t.test('series read at scrape time', async (t) => {
  const registry = createRegistry('gateway')
  let pools = ['kiel', 'sylt', 'husum']
  gaugesFrom(registry, 'fulmar_path', 'Paths', ['pool'], 2, () => pools.map((pool) => ({ labels: { pool }, value: 1 })))
  t.same(await samples(registry, 'fulmar_path'), ['fulmar_path{pool="kiel"} 1', 'fulmar_path{pool="sylt"} 1'])
  pools = ['husum']
  t.same(await samples(registry, 'fulmar_path'), ['fulmar_path{pool="husum"} 1'], 'what is gone is gone')
})

t.test('names that break the rules', async (t) => {
  const registry = createRegistry('agent')
  const rows: readonly [name: string, make: () => unknown, expected: RegExp][] = [
    ['no prefix', () => gauge(registry, 'services', ''), /fulmar_/],
    ['a counter without _total', () => counter(registry, 'fulmar_calls', ''), /_total/],
    ['a gauge with _total', () => gauge(registry, 'fulmar_calls_total', ''), /_total/],
    ['milliseconds', () => histogram(registry, 'fulmar_rtt_ms', ''), /base unit/],
  ]
  for (const [name, make, expected] of rows) t.throws(make, { message: expected }, name)
})
