import t from 'tap'
import { parseAllDocuments } from 'yaml'
import { explainYaml } from '../../../relay/api/yaml-mistake.ts'

const rows: readonly [name: string, text: string, line: number, message: string | RegExp][] = [
  [
    'a list never closed',
    'kind: Node\nmetadata:\n  name: [farm\n  labels: {}\n',
    3,
    '“name: [farm”: the [ is never closed: write ] where it ends, or quote the text',
  ],
  ['at the end of the file', 'kind: Node\nname: [farm\n', 2, /the \[ is never closed/],
  ['over several lines', 'name: [farm,\n  b,\nkind: Node\n', 1, /“name: \[farm,”: the \[ is never closed/],
  ['a map never closed', 'metadata: { name: a, labels: { b: c }\nspec: {}\n', 1, /the { is never closed: write }/],
  ['brackets in words, quotes and comments', "a: it's [\nb: 'x [' # {\nname: [farm\nc: 1\n", 3, /the \[ is never/],
  ['in the second document', 'kind: [ a ]\n---\nname: [farm\nkind: x\n', 3, /the \[ is never closed/],
  [
    'a quote never closed',
    'kind: Node\nname: "farm\nspec: {}\n',
    2,
    '“name: "farm”: the " is never closed: write " where it ends',
  ],
  ['indentation', 'metadata:\n  name: a\n labels: {}\n', 3, '“labels: {}”: is indented unlike the lines above it'],
  ['two colons', 'kind: Node\nname: a: b\n', 2, /has a second “: ” in its value/],
  ['no blank after the colon', 'a:\n  name:farm\n  b: 1\n', 2, '“name:farm”: has no “: ” between key and value'],
  ['a key twice', 'kind: Node\nname: a\nkind: Pod\n', 3, '“kind: Pod”: the same key stands above'],
  ['a tab', 'spec:\n\tx: 1\n', 2, /by a tab/],
  ['a reserved character', 'kind: @x\n', 1, /begins with @ must be quoted/],
  ['closed twice', 'a: { b: c }}\n', 1, /the } closes nothing/],
  ['a long line', `${'x'.repeat(80)}\nb: 1\n`, 1, new RegExp(`^“x{60}…”: `)],
]
for (const [name, text, line, message] of rows) {
  const [error] = parseAllDocuments(text, { prettyErrors: false }).flatMap(({ errors }) => errors)
  const explained = explainYaml(text, error!)
  t.match(explained.message, message, name)
  t.equal(text.slice(0, explained.offset).split('\n').length, line, `${name}: on line ${line}`)
}

t.test('any text gives some message and a place in it', async (t) => {
  const parts = [
    '[',
    '{',
    '"',
    "'",
    ': ',
    '- ',
    '\n',
    '  ',
    'a',
    '#',
    '---\n',
    '\t',
    '}',
    ']',
    '&a ',
    '*a',
    '|\n',
    '!',
    '%',
    '@',
  ]
  let seed = 1
  const next = (max: number) => (seed = (seed * 48271) % 2147483647) % max
  let seen = 0
  for (let i = 0; i < 2000; i++) {
    const text = Array.from({ length: 1 + next(12) }, () => parts[next(parts.length)]).join('')
    for (const error of parseAllDocuments(text, { prettyErrors: false }).flatMap(({ errors }) => errors)) {
      const { offset, message } = explainYaml(text, error)
      seen++
      if (message === '' || offset < 0 || offset > text.length) t.fail(JSON.stringify({ text, offset, message }))
    }
  }
  t.ok(seen > 100, `${seen} mistakes`)
})
