import t from 'tap'
import { contestedIn } from '../../../relay/api/contested.ts'
import { combineFiles, type Folder } from '../../../relay/api/folder.ts'
import { parseManifest } from '../../../relay/api/manifest-file.ts'

const NONE: Folder['byFile'] = new Map()
const files = (texts: Readonly<Record<string, string>>) =>
  new Map(Object.entries(texts).map(([file, text]) => [file, parseManifest(file, text)]))
const present = (texts: Readonly<Record<string, string | undefined>>) =>
  Object.fromEntries(Object.entries(texts).flatMap(([file, text]) => (text === undefined ? [] : [[file, text]])))
const node = (name: string, cidr = '', pool = name) =>
  `apiVersion: v1\nkind: Node\nmetadata: { name: ${name}, labels: { apps.openyurt.io/nodepool: ${pool} } }\nspec: { podCIDRs: [${cidr}] }\n`
const names = ({ objects }: Folder) => [...objects.values()].map(({ name }) => name).toSorted()
const cidrsOf = (folder: Folder, name: string) =>
  (
    [...folder.objects.values()].find((each) => each.name === name)?.object as
      | { spec: { podCIDRs: string[] } }
      | undefined
  )?.spec.podCIDRs

t.test('a file that breaks keeps its last good objects, and says so', async (t) => {
  const good = combineFiles(files({ 'a.yaml': `${node('a1')}---\n${node('a2')}`, 'b.yaml': node('b1') }), NONE)
  const broken = combineFiles(files({ 'a.yaml': `${node('a1')}---\nkind: [\n`, 'b.yaml': node('b1') }), good.byFile)
  t.strictSame(names(broken), ['a1', 'a2', 'b1'])
  t.match(broken.problems, [/a\.yaml:\d+: document 2/, /a\.yaml: 1 object is served as last known good/])
  const still = combineFiles(files({ 'a.yaml': 'kind: [', 'b.yaml': node('b1') }), broken.byFile)
  t.strictSame(names(still), ['a1', 'a2', 'b1'], 'and however often it is read')
  const mended = combineFiles(files({ 'a.yaml': node('a3'), 'b.yaml': node('b1') }), still.byFile)
  t.strictSame(names(mended), ['a3', 'b1'])
  t.strictSame(mended.problems, [])
})

t.test('an object that gets a flaw stays as it was; one that never was whole comes without the flaw', async (t) => {
  const good = combineFiles(files({ 'a.yaml': node('a', '10.244.1.0/24') }), NONE)
  t.strictSame(cidrsOf(combineFiles(files({ 'a.yaml': node('a', '10.244.1.0/99') }), good.byFile), 'a'), [
    '10.244.1.0/24',
  ])
  t.strictSame(cidrsOf(combineFiles(files({ 'a.yaml': node('a', '10.244.1.0/99, 10.244.2.0/24') }), NONE), 'a'), [
    '10.244.2.0/24',
  ])
})

t.test('a file that is removed takes its objects along; what moved to another file is not kept twice', async (t) => {
  const before = combineFiles(files({ 'a.yaml': `${node('a1')}---\n${node('a2')}`, 'b.yaml': node('b1') }), NONE)
  t.strictSame(names(combineFiles(files({ 'a.yaml': node('a1') }), before.byFile)), ['a1'])
  const moved = combineFiles(files({ 'a.yaml': 'kind: [', 'c.yaml': node('a2', '10.1.0.0/24') }), before.byFile)
  t.strictSame(names(moved), ['a1', 'a2'])
  t.strictSame(cidrsOf(moved, 'a2'), ['10.1.0.0/24'])
})

t.test('a folder that cannot be read keeps what was in it', async (t) => {
  const texts = {
    'a.yaml': node('a'),
    'east/b.yaml': node('b'),
    'east/in/c.yaml': node('c'),
    'easter/d.yaml': node('d'),
  }
  const { byFile } = combineFiles(files(texts), NONE)
  const rows: readonly [name: string, there: string[], unread: string[], kept: string[]][] = [
    ['the whole', [], [''], ['a', 'b', 'c', 'd']],
    ['one below', ['a.yaml'], ['east'], ['a', 'b', 'c']],
    ['one below that', ['a.yaml', 'east/b.yaml'], ['east/in'], ['a', 'b', 'c']],
    ['none', ['a.yaml'], [], ['a']],
  ]
  for (const [name, there, unread, kept] of rows) {
    const present = files(Object.fromEntries(Object.entries(texts).filter(([file]) => there.includes(file))))
    const folder = combineFiles(present, byFile, unread)
    t.strictSame(names(folder), kept, name)
    t.strictSame(names(combineFiles(present, folder.byFile, unread)), kept, `${name}, and again`)
  }
})

t.test('an object in two files: the first counts, both are named', async (t) => {
  const folder = combineFiles(
    files({ 'a.yaml': node('x', '10.1.0.0/24'), 'b.yaml': `# two\n${node('x', '10.2.0.0/24')}` }),
    NONE,
  )
  t.strictSame(cidrsOf(folder, 'x'), ['10.1.0.0/24'])
  t.match(folder.problems, [/^b\.yaml:2: Node x is also at a\.yaml:1: this one is left out; remove one/])
})

t.test('a Node that is edited to take a prefix from another pool is served as it was', async (t) => {
  const [A, B] = ['10.244.1.0/24', '10.244.2.0/24']
  const start = { 'a.yaml': node('a', A), 'b.yaml': node('b', B) }
  const rows: readonly {
    name: string
    /** undefined: removed. */
    edited: Record<string, string | undefined>
    cidrs: Record<string, string[]>
    problems?: RegExp[]
  }[] = [
    {
      name: 'the same prefix',
      edited: { 'b.yaml': node('b', A) },
      cidrs: { a: [A], b: [B] },
      problems: [
        /^b\.yaml:1: Node b: podCIDR 10\.244\.1\.0\/24 takes 10\.244\.1\.0\/24 from node a of another pool: .* last/,
      ],
    },
    {
      name: 'one around it',
      edited: { 'b.yaml': node('b', '10.244.0.0/16') },
      cidrs: { a: [A], b: [B] },
      problems: [/10\.244\.0\.0\/16 takes 10\.244\.1\.0\/24 from node a/],
    },
    {
      name: 'moved to another file meanwhile',
      edited: { 'b.yaml': undefined, 'c.yaml': node('b', A) },
      cidrs: { a: [A], b: [B] },
      problems: [/^c\.yaml:1: Node b/],
    },
    { name: 'a new node is younger than all', edited: { 'c.yaml': node('c', A) }, cidrs: { a: [A], b: [B], c: [A] } },
    {
      name: 'two that exchange theirs',
      edited: { 'a.yaml': node('a', B), 'b.yaml': node('b', A) },
      cidrs: { a: [B], b: [A] },
    },
    {
      name: 'one that no one has',
      edited: { 'b.yaml': node('b', '10.244.3.0/24') },
      cidrs: { a: [A], b: ['10.244.3.0/24'] },
    },
    { name: 'one of a node that is gone', edited: { 'a.yaml': undefined, 'b.yaml': node('b', A) }, cidrs: { b: [A] } },
    {
      name: 'one of a neighbour in its own pool',
      edited: { 'a.yaml': node('a', A, 'b'), 'b.yaml': node('b', A) },
      cidrs: { a: [A], b: [A] },
    },
  ]
  for (const { name, edited, cidrs, problems = [] } of rows) {
    const { byFile } = combineFiles(files(start), NONE)
    const texts = files(present({ ...start, ...edited }))
    const once = combineFiles(texts, byFile)
    for (const [time, folder] of Object.entries({ once, again: combineFiles(texts, once.byFile) })) {
      t.strictSame(
        Object.fromEntries(names(folder).map((each) => [each, cidrsOf(folder, each)])),
        cidrs,
        `${name}, ${time}`,
      )
      t.equal(folder.problems.length, problems.length, folder.problems.join('\n'))
      t.match(folder.problems, problems)
    }
    t.strictSame(combineFiles(files(start), once.byFile).problems, [], `${name}, mended`)
  }
})

t.test('a Node that never stood well is served as it is now', async (t) => {
  const [A, B] = ['10.244.1.0/24', '10.244.1.8/30']
  const before = combineFiles(files({ 'a.yaml': node('a', A), 'b.yaml': node('b', A) }), NONE)
  const { problems, ...folder } = combineFiles(files({ 'a.yaml': node('a', A), 'c.yaml': node('b', B) }), before.byFile)
  t.strictSame(cidrsOf({ ...folder, problems }, 'b'), [B])
  t.strictSame(problems, [])
})

t.test('a mistake of a Gateway is named with its file, not with those of its nodes', async (t) => {
  const gateway = `apiVersion: raven.openyurt.io/v1beta1\nkind: Gateway\nmetadata: {name: a}\nspec: {exposeType: Foo}\n`
  const { objects } = combineFiles(files({ 'a.yaml': node('a', '10.244.1.0/24'), 'gate.yaml': gateway }), NONE)
  const served = (kind: string) =>
    [...objects.values()].filter((each) => each.kind.kind === kind).map(({ object }) => object)
  t.match(contestedIn(objects, served), [/^gate\.yaml:1: Gateway a: spec\.exposeType/])
})

t.test('two pools with one podCIDR are named with their files', async (t) => {
  const { objects, problems } = combineFiles(
    files({ 'a.yaml': node('a', '10.244.1.0/24'), 'b.yaml': node('b', '10.244.1.0/24') }),
    NONE,
  )
  t.strictSame(problems, [])
  const served = (created: Readonly<Record<string, string>>) => (kind: string) =>
    [...objects.values()]
      .filter((each) => each.kind.kind === kind)
      .map(({ name, object }) => ({ ...object, metadata: { name, creationTimestamp: created[name] ?? '' } }))
  t.match(contestedIn(objects, served({})), [
    /^a\.yaml:1, b\.yaml:1: podCIDR 10\.244\.1\.0\/24 is claimed by node a of pool a and node b of pool b: none/,
  ])
  t.match(contestedIn(objects, served({ a: '2026-01-02T00:00:00Z', b: '2026-01-01T00:00:00Z' })), [/node b .*keeps it/])
})
