import t from 'tap'
import { noticeOf, readTable } from '../../agent/nft-observed.ts'
import { markerOf } from '../../agent/nft-text.ts'
import { ruleset } from './rulesets.ts'

t.test('a table that a predecessor left', async (t) => {
  const wanted = ruleset([4, 5])
  const marker = markerOf(wanted, 7)
  const key = { concat: ['10.96.0.1', 'tcp', 80] }
  const listing = (rules: number, layout = marker): string =>
    JSON.stringify({
      nftables: [
        { metainfo: {} },
        { table: { family: 'ip', name: 'fulmar' } },
        { chain: { name: layout } },
        { map: { name: 'takeover', elem: [[{ elem: { val: key, timeout: 3 } }, key]] } },
        {
          map: {
            name: 'services',
            elem: [
              [key, { goto: { target: 'class-1' } }],
              [{ concat: ['10.96.0.3', 'udp', 9] }, { drop: null }],
            ],
          },
        },
        {
          map: {
            name: 'endpoints-1',
            elem: [[{ concat: ['10.96.0.1', 'tcp', 80, 0] }, { concat: ['10.244.1.9', 8080] }]],
          },
        },
        { set: { name: 'mesh', elem: [{ prefix: { addr: '10.244.1.0', len: 24 } }, '10.244.7.1'] } },
        { set: { name: 'cluster-ips' } },
        ...Array.from({ length: rules }, () => ({ rule: {} })),
      ],
    })
  const held = readTable(listing(14), wanted)
  t.strictSame(
    Object.fromEntries([...held!.ruleset.objects].map(([name, elements]) => [name, Object.fromEntries(elements)])),
    {
      services: { '10.96.0.1 . tcp . 80': 'goto class-1', '10.96.0.3 . udp . 9': 'drop' },
      'endpoints-1': { '10.96.0.1 . tcp . 80 . 0': '10.244.1.9 . 8080' },
      mesh: { '10.244.1.0/24': '', '10.244.7.1': '' },
      'cluster-ips': {},
    },
  )
  t.equal(held!.marker, marker)
  t.equal(readTable(listing(13), wanted), undefined, 'rules are missing')
  t.equal(readTable(listing(14, markerOf(ruleset([4], '10.244.1.2'), 7)), wanted), undefined, 'other rules')
  t.equal(readTable('', wanted), undefined, 'no table')
})

t.test('notices', async (t) => {
  const held = { ruleset: ruleset([4, 5]), marker: 'layout-a-2' }
  const rows: readonly (readonly [line: string, kind: string | undefined])[] = [
    ['delete chain ip fulmar layout-a-2', 'lost'],
    ['delete chain ip fulmar layout-a-1', 'replaced'],
    ['delete chain ip6 fulmar layout-a-2', undefined],
    ['delete rule ip fulmar nat-output handle 12', 'rules-gone'],
    ['delete rule ip other nat-output handle 12', undefined],
    ['delete element ip fulmar services { 10.96.0.1 . tcp . 80 : goto class-2 }', 'doubtful'],
    ['delete element ip fulmar services { 10.96.0.1 . tcp . 80 : goto class-1 }', undefined],
    ['delete element ip fulmar mesh { 10.244.2.0/24 }', 'doubtful'],
    ['delete element ip fulmar takeover { 10.96.0.10 . udp . 53 : 169.254.20.53 . 53 }', undefined],
    ['delete table ip fulmar', undefined],
    ['', undefined],
  ]
  for (const [line, kind] of rows) t.equal(noticeOf(line, [held])?.kind, kind, line)
  t.match(noticeOf(rows[5]![0], [held]), { command: 'get element ip fulmar services { 10.96.0.1 . tcp . 80 }' })
})
