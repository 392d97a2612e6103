import t from 'tap'
import {
  decodeJoinAnswer,
  decodeJoinRequest,
  formatToken,
  isNodeName,
  MAX_JOIN_BYTES,
  parseToken,
} from '../../../lib/wire/join.ts'

const SECRET = 'AAECAwQFBgcICQoLDA0ODxAREhMUFRYX'
const CA = 'AAECAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwdHh8'

t.test('a token is written and read', async (t) => {
  const token = { node: 'edge-1.example', secret: SECRET, caHash: CA }
  t.equal(formatToken(token), `fmj1:edge-1.example:${SECRET}:${CA}`)
  t.same(parseToken(` ${formatToken(token)}\n`), token, 'with what a terminal adds')
})

t.test('a token that cannot be right says why', async (t) => {
  const rows: readonly [name: string, text: string, error: RegExp][] = [
    ['empty', '', /not a join token/],
    ['a token of something else', 'abcdef.0123456789abcdef', /not a join token/],
    ['cut off', `fmj1:h1:${SECRET}:${CA.slice(1)}`, /cut off/],
    ['without a hash', `fmj1:h1:${SECRET}`, /cut off/],
    ['with more', `fmj1:h1:${SECRET}:${CA}:x`, /damaged/],
    ['a short secret', `fmj1:h1:${SECRET.slice(4)}:${CA}`, /damaged/],
    ['not base64url', `fmj1:h1:${SECRET.replace('A', '+')}:${CA}`, /damaged/],
    ['no node', `fmj1::${SECRET}:${CA}`, /damaged/],
  ]
  for (const [name, text, error] of rows) t.throws(() => parseToken(text), { message: error }, name)
})

t.test('names of nodes', async (t) => {
  for (const name of ['h1', 'a', 'edge-1.example.com', '1st', 'a'.repeat(253)]) t.ok(isNodeName(name), name)
  for (const name of ['', 'H1', '-a', 'a-', 'a..b', '.a', 'a b', 'a/b', '../x', 'a:b', '10.0.0.1', 'a'.repeat(254)])
    t.notOk(isNodeName(name), name)
})

t.test('bodies that are none', async (t) => {
  const good = { version: 1, secret: SECRET, csr: 'x' }
  t.same(decodeJoinRequest(JSON.stringify({ ...good, later: true })), good)
  for (const text of [
    '',
    'null',
    '[]',
    '1',
    '{',
    '{}',
    JSON.stringify({ ...good, secret: 1 }),
    JSON.stringify({ ...good, csr: [] }),
  ])
    t.equal(decodeJoinRequest(text), undefined, text)
  t.equal(decodeJoinRequest(JSON.stringify({ ...good, csr: 'x'.repeat(MAX_JOIN_BYTES) })), undefined, 'too long')
  const answer = { version: 1, node: 'h1', certificate: 'c', ca: 'd', relays: ['https://192.0.2.1:443'], stun: [] }
  t.same(decodeJoinAnswer(JSON.stringify(answer)), answer)
  t.equal(decodeJoinAnswer(JSON.stringify({ ...answer, relays: 'x' })), undefined)
  t.equal(decodeJoinAnswer(JSON.stringify({ ...answer, stun: [1] })), undefined)
})
