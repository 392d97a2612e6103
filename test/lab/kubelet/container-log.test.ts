import { mkdtempSync, readdirSync, rmSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import t from 'tap'
import { ContainerLog, type LogQuery } from './container-log.ts'

const ALL: LogQuery = {
  follow: false,
  previous: false,
  timestamps: false,
  tailLines: undefined,
  limitBytes: undefined,
  since: undefined,
}
const START_MS = Date.UTC(2026, 0, 2, 3, 4, 5)
const never = new AbortController().signal

function folder(): string {
  const directory = mkdtempSync(join(tmpdir(), 'fulmar-log-'))
  t.teardown(() => rmSync(directory, { recursive: true }))
  return directory
}

async function textOf(log: ContainerLog, query: Partial<LogQuery> = {}): Promise<string | undefined> {
  const lines = log.read({ ...ALL, ...query }, never)
  if (lines === undefined) return undefined
  let text = ''
  for await (const line of lines) text += line.toString()
  return text
}

const log = new ContainerLog(folder())
log.begin()
log.write('stdout', Buffer.from('one\ntw'), START_MS)
log.write('stderr', Buffer.from('err\n'), START_MS + 1_000)
log.write('stdout', Buffer.from('o\n\nrest'), START_MS + 2_000)
log.end(START_MS + 3_000)

const queries: readonly (readonly [title: string, query: Partial<LogQuery>, wanted: string | undefined])[] = [
  ['all', {}, 'one\nerr\ntwo\n\nrest'],
  ['the last two', { tailLines: 2 }, '\nrest'],
  ['none', { tailLines: 0 }, ''],
  ['more than there are', { tailLines: 99 }, 'one\nerr\ntwo\n\nrest'],
  ['since', { since: START_MS + 1_500 }, 'two\n\nrest'],
  ['so many bytes', { limitBytes: 5 }, 'one\ne'],
  [
    'with times',
    { timestamps: true, tailLines: 4 },
    '2026-01-02T03:04:06.000000000Z err\n2026-01-02T03:04:07.000000000Z two\n2026-01-02T03:04:07.000000000Z \n2026-01-02T03:04:08.000000000Z rest',
  ],
  ['of a run that was not', { previous: true }, undefined],
]
for (const [title, query, wanted] of queries) t.test(title, async (t) => t.equal(await textOf(log, query), wanted))

t.test('of the run before', async (t) => {
  const runs = new ContainerLog(folder())
  for (const run of ['first', 'second', 'third']) {
    runs.begin()
    runs.write('stdout', Buffer.from(`${run}\n`), START_MS)
  }
  t.equal(await textOf(runs), 'third\n')
  t.equal(await textOf(runs, { previous: true }), 'second\n')
})

t.test('a reader follows over rotations, whose oldest files go', async (t) => {
  const directory = folder()
  const rotating = new ContainerLog(directory, { fileMaxBytes: 1_000, filesMax: 3 })
  rotating.begin()
  const reading = textOf(rotating, { follow: true })
  let wanted = ''
  for (let line = 0; line < 200; line++) {
    wanted += `line ${line}\n`
    rotating.write('stdout', Buffer.from(`line ${line}\n`), START_MS)
    // The reader has its turn.
    if (line % 10 === 0) await new Promise((resolve) => setTimeout(resolve, 5))
  }
  rotating.end(START_MS)
  t.equal(await reading, wanted)
  t.equal(readdirSync(directory).length, 3)
  const kept = (await textOf(rotating))!
  t.ok(wanted.endsWith(kept) && kept.length < wanted.length, 'what is left is the end')
})

t.test('a line that is too long comes in pieces and is one', async (t) => {
  const long = new ContainerLog(folder())
  long.begin()
  const text = 'x'.repeat(50_000)
  long.write('stdout', Buffer.from(`${text}\nshort\n`), START_MS)
  t.equal(await textOf(long), `${text}\nshort\n`)
  t.equal(
    await textOf(long, { timestamps: true }),
    `2026-01-02T03:04:05.000000000Z ${text}\n2026-01-02T03:04:05.000000000Z short\n`,
  )
})
