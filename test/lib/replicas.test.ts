import t from 'tap'
import { nameOf, parseReplicas, readReplicas } from '../../lib/replicas.ts'

t.test('as an operator writes it', (t) => {
  t.same(parseReplicas(''), [])
  const two = parseReplicas(' https://relay-1.example , https://203.0.113.12:8443+https://[2001:db8::12]/')
  t.same(two, [['https://relay-1.example:443'], ['https://203.0.113.12:8443', 'https://[2001:db8::12]:443']])
  t.same(two.map(nameOf), ['https://relay-1.example:443', 'https://203.0.113.12:8443'])
  const rows: readonly [text: string, error: RegExp][] = [
    ['relay-1', /is not a URL like https/],
    ['http://relay-1', /is not a URL like https/],
    ['https://relay-1/path', /more than https:\/\/HOST:PORT/],
    ['https://me@relay-1', /more than/],
    ['https://relay-1,https://relay-1:443', /names https:\/\/relay-1:443 twice/],
    ['https://a+', /is not a URL/],
    [Array.from({ length: 65 }, (_, index) => `https://r${index}`).join(), /more than 64/],
  ]
  for (const [text, error] of rows) t.throws(() => parseReplicas(text), { message: error }, text)
  t.end()
})

t.test('as a relay tells it', (t) => {
  const list = parseReplicas('https://a,https://b+https://c:1')
  t.same(readReplicas(JSON.parse(JSON.stringify(list))), list)
  const rows: readonly unknown[] = [
    ...[
      undefined,
      null,
      'https://a:443',
      {},
      [],
      [[]],
      [['https://a']],
      [['ftp://a:443']],
      [[1]],
      [['https://a:443/x']],
    ],
    Array.from({ length: 65 }, (_, index) => [`https://r${index}:443`]),
    [Array.from({ length: 9 }, (_, index) => `https://r${index}:443`)],
  ]
  for (const value of rows) t.equal(readReplicas(value), undefined, JSON.stringify(value))
  t.end()
})
