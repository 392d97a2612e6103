import t from 'tap'
import { noticeOf, readTable } from '../../agent/nft-observed.ts'
import { rulesOf } from '../../agent/nft-service.ts'
import { classChains, markerOf, staticTable } from '../../agent/nft-text.ts'
import { OBJECTS } from '../../agent/nft.ts'
import { loadedBy, ruleset, sticky } from './rulesets.ts'

t.test('a table that a predecessor left', async (t) => {
  const wanted = ruleset({ endpoints: [4, 5], services: [sticky] })
  const marker = markerOf(wanted, 7)
  const key = { concat: ['10.96.0.1', 'tcp', 80] }
  const chains = new Map<string, number>()
  let chain = ''
  for (const line of staticTable(wanted, '').split('\n')) {
    chain = /^ {2}(?:chain )?(\S*)/.exec(line)?.[1] || chain
    if (/^ {4}(?!type|elements)/.test(line)) chains.set(chain, (chains.get(chain) ?? 0) + 1)
  }
  for (const [name, rules] of classChains(4, { prefix: '', count: 1 })) chains.set(name, rules.length)
  const affinity = [...wanted.services].map((service) => rulesOf(service, 4)).find(({ chains }) => chains.size > 0)!
  for (const [name, rules] of affinity.chains) chains.set(name, rules.length)
  const listing = (without: string | undefined, layout = marker): string =>
    JSON.stringify({
      nftables: [
        { metainfo: {} },
        { table: { family: 'ip', name: 'fulmar' } },
        { chain: { name: layout } },
        ...[...chains.keys()].map((name) => ({ chain: { name } })),
        ...OBJECTS.map((name) => ({ set: { name } })),
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
        {
          set: {
            name: 'source-ranges',
            elem: [{ concat: ['203.0.113.1', 'tcp', 80, { prefix: { addr: '10.0.0.0', len: 8 } }] }],
          },
        },
        ...[...affinity.sets.keys()].map((name) => ({
          set: { name, elem: [{ elem: { val: '10.1.1.1', expires: 9 } }] },
        })),
        ...[...chains].flatMap(([chain, count]) =>
          Array.from({ length: chain === without ? count - 1 : count }, () => ({ rule: { chain } })),
        ),
      ],
    })
  const { loaded, ...held } = readTable(listing(undefined), wanted)!
  t.strictSame(
    Object.fromEntries(
      [...loaded.listed!].flatMap(([name, elements]) =>
        elements.size > 0 ? [[name, Object.fromEntries(elements)]] : [],
      ),
    ),
    {
      services: { '10.96.0.1 . tcp . 80': 'goto class-1', '10.96.0.3 . udp . 9': 'drop' },
      'endpoints-1': { '10.96.0.1 . tcp . 80 . 0': '10.244.1.9 . 8080' },
      mesh: { '10.244.1.0/24': '', '10.244.7.1': '' },
      'source-ranges': { '203.0.113.1 . tcp . 80 . 10.0.0.0/8': '' },
    },
  )
  t.strictSame([...loaded.made].sort(), ['endpoints-1', ...affinity.chains.keys(), ...affinity.sets.keys()].sort())
  t.equal(held.marker, marker)
  for (const chain of ['nat-output', 'masq-1', ...affinity.chains.keys()])
    t.equal(readTable(listing(chain), wanted), undefined, `a rule is missing in ${chain}`)
  const others = markerOf(ruleset({ endpoints: [4], source: '10.244.1.2' }), 7)
  t.equal(readTable(listing(undefined, others), wanted), undefined, 'other rules')
  t.equal(readTable('', wanted), undefined, 'no table')
})

t.test('notices', async (t) => {
  const held = { loaded: loadedBy(ruleset({ endpoints: [4, 5], services: [sticky] })), marker: 'layout-a-2' }
  const affinity = [...held.loaded.made].find((name) => name.startsWith('affinity-'))
  const rows: readonly (readonly [line: string, kind: string | undefined])[] = [
    ['delete chain ip fulmar layout-a-2', 'lost'],
    ['delete chain ip fulmar layout-a-1', 'replaced'],
    ['delete chain ip6 fulmar layout-a-2', undefined],
    ['delete rule ip fulmar nat-output handle 12', 'rules-gone'],
    [`delete rule ip fulmar ${affinity} handle 12`, 'rules-gone'],
    ['delete rule ip fulmar affinity-0123456789abcdef handle 12', undefined],
    ['delete rule ip other nat-output handle 12', undefined],
    ['delete element ip fulmar services { 10.96.0.1 . tcp . 80 : goto class-2 }', 'doubtful'],
    ['delete element ip fulmar services { 10.96.0.1 . udp . 81 : goto refuse }', undefined],
    ['delete element ip fulmar mesh { 10.244.2.0/24 }', 'doubtful'],
    ['delete element ip fulmar-dns takeover { 10.96.0.10 . udp . 53 : 169.254.20.53 . 53 }', undefined],
    ['delete element ip fulmar sticky-1 { 10.1.1.1 }', undefined],
    ['delete table ip fulmar', undefined],
    ['', undefined],
  ]
  const removed = (_: number, object: string, key: string) => `${object} ${key}` === 'services 10.96.0.1 . udp . 81'
  for (const [line, kind] of rows) t.equal(noticeOf(line, [held], removed)?.kind, kind, line)
  t.match(noticeOf(rows[7]![0], [held], removed), {
    command: 'get element ip fulmar services { 10.96.0.1 . tcp . 80 }',
  })
})
