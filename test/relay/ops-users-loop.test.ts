import { createHash } from 'node:crypto'
import { mkdir, mkdtemp, rename, rm, symlink, writeFile } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import t from 'tap'
import { followUsers } from '../../relay/ops-users-loop.ts'
import { log } from './mesh.ts'
import { until } from '../lib/until.ts'

const row = (name: string): string => `${name} ${createHash('sha256').update(name).digest('hex')} * *\n`

t.test('users as the file has them', async (t) => {
  const folder = await mkdtemp(join(tmpdir(), 'fulmar-users-'))
  const life = new AbortController()
  const at = (name: string): string => join(folder, name)
  // As a Secret is mounted: users -> ..data/users, ..data -> a folder that is replaced as a whole.
  await mkdir(at('1'))
  await mkdir(at('2'))
  await writeFile(at('1/users'), row('first'))
  await writeFile(at('2/users'), row('linked'))
  await symlink('1', at('..data'))
  await symlink('..data/users', at('users'))
  const errors: string[] = []
  const heard = { ...log, info: () => {}, error: ({ err }: { err: Error }) => void errors.push(err.message) }
  const { users, closed } = followUsers({ file: at('users'), log: heard as never, lookMs: 20 }, life.signal)
  t.teardown(async () => {
    life.abort()
    await closed
    await rm(folder, { recursive: true })
  })
  const names = (): string =>
    users()
      .map(({ name }) => name)
      .join()
  t.equal(names(), 'first')
  await writeFile(at('1/users'), row('first') + row('second'))
  await until(() => names() === 'first,second')
  await symlink('2', at('next'))
  await rename(at('next'), at('..data'))
  await until(() => names() === 'linked')
  await writeFile(at('2/users'), 'nonsense\n')
  await until(() => errors.length === 1)
  await rm(at('2/users'))
  await until(() => errors.length === 2)
  t.match(errors, [/^line 1: is not USER/, /ENOENT/], 'each mistake is told once')
  t.equal(names(), 'linked', 'and changes nothing')
  await writeFile(at('2/users'), '# nobody any more\n')
  await until(() => names() === '')
})

t.test('a file that cannot be used at the start', async (t) => {
  const { signal } = new AbortController()
  t.throws(() => followUsers({ file: '/nowhere/users', log }, signal), {
    code: 'FULMAR_USAGE',
    message: /--proxy-users/,
  })
  t.same(followUsers({ file: undefined, log }, signal).users(), [])
})
