import t from 'tap'
import { clusterOf } from '../../agent/cluster.ts'
import { beginTakeover, endTakeover, renewTakeover, takeoverTable, takeoversOf } from '../../agent/takeover.ts'
import { takeover } from './rulesets.ts'

const KEYS = [17, 6].map((protocol) => Buffer.from([10, 96, 0, 10, protocol, 0, 0, 0, 0, 53, 0, 0]))

t.test('a takeover is renewed whether it is there or not', async (t) => {
  const renewed = renewTakeover(takeover)
  t.strictSame(
    renewed.map(({ kind, set }) => `${kind} ${set}`),
    ['add takeover', 'add apart', 'delete takeover', 'delete apart', 'add takeover', 'add apart'],
  )
  t.match(renewed[0], { family: 4, table: 'fulmar-dns' })
  const value = Buffer.from([169, 254, 20, 53, 0, 53, 0, 0])
  t.strictSame(
    renewed[0]!.elements,
    KEYS.map((key) => ({ key, value, timeoutMs: 3_000 })),
    'for UDP and for TCP',
  )
  t.strictSame(
    renewed[1]!.elements,
    KEYS.map((key) => ({ key, timeoutMs: 3_000 })),
  )
  t.strictSame(
    endTakeover(takeover).map(({ kind, set }) => `${kind} ${set}`),
    ['add takeover', 'add apart', 'delete takeover', 'delete apart'],
  )
})

t.test('our own address is apart for ever', async (t) => {
  t.strictSame(beginTakeover(takeover), [
    {
      ...{ kind: 'add', family: 4, table: 'fulmar-dns', set: 'apart' },
      elements: [17, 6].map((protocol) => ({
        key: Buffer.from([169, 254, 20, 53, protocol, 0, 0, 0, 0, 53, 0, 0]),
      })),
    },
  ])
})

t.test('a kernel without tables of an owner gets one without zones', async (t) => {
  t.match(takeoverTable(4, true), { owned: true, chains: { length: 4 } })
  const { owned, chains } = takeoverTable(4, false)
  t.equal(owned, false)
  t.strictSame(
    chains.map(({ name }) => name),
    ['nat-prerouting', 'nat-output'],
  )
})

t.test('which ClusterIPs are taken over: those of the Service, in families that are served', async (t) => {
  const clusterIPs = ['10.96.0.10', 'fd00:96::a']
  const cluster = clusterOf({
    services: [
      { metadata: { namespace: 'kube-system', name: 'kube-dns' }, spec: { clusterIP: clusterIPs[0]!, clusterIPs } },
    ],
    slices: [],
    nodes: [],
    nodePools: [],
    gateways: [],
  })
  const dns = { namespace: 'kube-system', name: 'kube-dns' }
  const [v4, v6] = ['169.254.20.53', 'fd66:756c:6d61::53']
  const rows: readonly {
    name: string
    of?: typeof cluster
    service?: typeof dns
    listening: string[]
    taken: string[]
  }[] = [
    {
      name: 'both',
      of: cluster,
      service: dns,
      listening: [v6, v4],
      taken: [`${clusterIPs[0]} ${v4}`, `${clusterIPs[1]} ${v6}`],
    },
    { name: 'one family', of: cluster, service: dns, listening: [v6], taken: [`${clusterIPs[1]} ${v6}`] },
    { name: 'nothing served yet', of: cluster, service: dns, listening: [], taken: [] },
    { name: 'no such Service', of: cluster, service: { ...dns, name: 'coredns' }, listening: [v4], taken: [] },
    { name: 'switched off', of: cluster, listening: [v4], taken: [] },
    { name: 'nothing known yet', service: dns, listening: [v4], taken: [] },
  ]
  for (const { name, of, service, listening, taken } of rows)
    t.strictSame(
      takeoversOf(of, service, listening).map(({ clusterIp, to }) => `${clusterIp} ${to}`),
      taken,
      name,
    )
})
