import t from 'tap'
import { find, probe } from '../../../lib/net/preflight.ts'
import type { Probe, Requirement } from '../../../lib/preflight.ts'

const requirement = (wanted: Probe): Requirement => ({ name: 'x', probe: wanted, why: '', needers: [], remedy: '' })

const rows: readonly [name: string, probe: Probe, expected: RegExp | undefined][] = [
  ['a program', { kind: 'program', program: 'sh' }, undefined],
  ['no program', { kind: 'program', program: 'fulmar-nope' }, /is not installed/],
  ['a file that is no program', { kind: 'program', program: '../etc/passwd' }, /is not installed/],
  ['a device', { kind: 'device', path: '/dev/null' }, undefined],
  ['no device', { kind: 'device', path: '/dev/fulmar-nope' }, /cannot be opened: ENOENT/],
]

t.test('what is there and what is not', async (t) => {
  const found = await probe(rows.map(([, wanted]) => requirement(wanted)))
  for (const [index, [name, , expected]] of rows.entries()) {
    const { problem } = found[index]!
    if (expected === undefined) t.equal(problem, undefined, name)
    else t.match(problem, expected, name)
  }
})

t.test('programs of root are found where PATH lacks their folder', async (t) => {
  const { PATH } = process.env
  process.env['PATH'] = '/nowhere'
  t.teardown(() => (process.env['PATH'] = PATH))
  t.match(find('nft') ?? find('ip') ?? '/sbin/', /sbin/)
})
