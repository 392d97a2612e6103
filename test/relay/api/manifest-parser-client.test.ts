import { readdirSync, readFileSync } from 'node:fs'
import t, { type Test } from 'tap'
import { parseManifest } from '../../../relay/api/manifest-file.ts'
import {
  createManifestParser,
  type ManifestParser,
  type ParserLimits,
} from '../../../relay/api/manifest-parser-client.ts'

const node = (name: string) =>
  `apiVersion: v1\nkind: Node\nmetadata:\n  name: ${name}\n  labels: { pool: home }\nspec:\n  podCIDRs:\n    - 10.244.1.0/24\n`
const large = Array.from({ length: 6_000 }, (_, i) => node(`n${i}`)).join('---\n')

function start(t: Test, limits: ParserLimits = {}): ManifestParser {
  const life = new AbortController()
  const parser = createManifestParser(limits, life.signal)
  t.teardown(() => {
    life.abort()
    return parser.rest()
  })
  return parser
}
/** How many threads of Node there are, as the kernel names them. */
const threads = () =>
  readdirSync('/proc/self/task').filter((id) =>
    readFileSync(`/proc/self/task/${id}/comm`, 'utf8').startsWith('WorkerThread'),
  ).length

t.test('the same as without a thread, which rests between', async (t) => {
  const parser = start(t)
  const padding = `# ${'-'.repeat(10_000)}\n`
  const texts = [
    node('a'),
    '',
    `${node('a')}---\nkind: [\n---\n${node('b').replace('10.244.1.0', '10.244.999.0')}`,
    'apiVersion: v1\nkind: ConfigMap\nmetadata: { name: c }\ndata: { a: &x "1", b: *x, "null": "é\\u0000" }\n',
    '{"apiVersion":"apps.openyurt.io/v1beta2","kind":"NodePool","metadata":{"name":"p"}}',
  ]
  for (const text of texts) t.strictSame(await parser.parse('f.yaml', text), parseManifest('f.yaml', text))
  t.equal(threads(), 0, 'small files need none')
  for (const text of texts.map((each) => padding + each)) {
    const [parsed, expected] = [await parser.parse('f.yaml', text), parseManifest('f.yaml', text)]
    t.strictSame(parsed, expected)
    t.ok(
      parsed.objects.every(({ kind }, i) => kind === expected.objects[i]!.kind),
      'kinds are those of the table',
    )
  }
  t.equal(threads(), 1)
  await parser.rest()
  t.equal(threads(), 0)
  t.equal((await parser.parse('f.yaml', padding + node('a'))).objects.length, 1, 'and begins anew')
})

t.test('others go on meanwhile', async (t) => {
  const parser = start(t)
  let longestMs = 0
  let lastAt = performance.now()
  const ticking = setInterval(() => {
    longestMs = Math.max(longestMs, performance.now() - lastAt)
    lastAt = performance.now()
  }, 1)
  const startedAt = performance.now()
  const { objects } = await parser.parse('f.yaml', large)
  const tookMs = performance.now() - startedAt
  clearInterval(ticking)
  t.equal(objects.length, 6_000)
  t.comment(`parsed in ${Math.round(tookMs)} ms, longest pause ${Math.round(longestMs)} ms`)
  t.ok(longestMs < tookMs / 4)
})

t.test('a file that costs too much is a problem of its own', async (t) => {
  const rows: readonly { name: string; limits: ParserLimits; text: string; problem: RegExp }[] = [
    {
      name: 'time',
      limits: { deadlineMs: 200 },
      text: large,
      problem: /^f\.yaml: cannot be parsed: it takes more than 0\.2 s to parse: it is left out; correct or split it$/,
    },
    { name: 'memory', limits: { heapMb: 24 }, text: large, problem: /^f\.yaml: cannot be parsed: .*memory/ },
  ]
  for (const { name, limits, text, problem } of rows) {
    const parser = start(t, limits)
    const parsed = await parser.parse('f.yaml', text)
    t.strictSame(parsed.objects, [], name)
    t.match(parsed.problems, [problem], name)
    t.equal(threads(), 0, `${name}: the thread is gone`)
    const next = createManifestParser({}, new AbortController().signal)
    t.equal((await next.parse('g.yaml', large)).objects.length, 6_000, `${name}: it is the limit's doing`)
    await next.rest()
  }
})

t.test('an end while it parses', async (t) => {
  const life = new AbortController()
  const parser = createManifestParser({}, life.signal)
  const parsing = parser.parse('f.yaml', large)
  life.abort()
  t.strictSame((await parsing).objects, [])
  t.equal(threads(), 0)
})
