// Nodes as a real API names them, those that are deleted while nobody looks included.

import { existsSync, readFileSync } from 'node:fs'
import { mkdir, mkdtemp, rm, writeFile } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import t from 'tap'
import { issuerFolder } from '../../lib/net/authority.ts'
import { followNodeNames, openMembers } from '../../relay/members-loop.ts'
import { serve, temporaryFolder, log } from './api/serving.ts'
import { until } from '../lib/until.ts'

const folder = temporaryFolder(t)
const node = (name: string) => `apiVersion: v1\nkind: Node\nmetadata:\n  name: ${name}\n`
const fileOf = (name: string) => join(folder, `${name}.yaml`)
for (const name of ['a', 'b', 'c']) await writeFile(fileOf(name), node(name))
const stateDir = await mkdtemp(join(tmpdir(), 'fulmar-members-'))
t.teardown(() => rm(stateDir, { recursive: true }))
await mkdir(issuerFolder(stateDir), { recursive: true })
const kept = join(issuerFolder(stateDir), 'nodes.json')
const { client } = await serve(t, folder, temporaryFolder(t))

/** A relay's life with this state folder. */
async function start() {
  const life = new AbortController()
  const source = followNodeNames(client(), log, life.signal)
  const { members, run } = await openMembers({ stateDir, source, longestMs: 86_400_000, log })
  const deleted: string[] = []
  const running = run((name) => void deleted.push(name), life.signal)
  const stop = async (): Promise<void> => {
    life.abort()
    await Promise.all([running, source.done])
  }
  t.teardown(stop)
  return { members, deleted, stop, names: () => source.nodes()?.map(({ metadata }) => metadata?.name) }
}

t.test('deleted while the relay runs, and while it does not', async (t) => {
  const first = await start()
  await until(() => existsSync(kept) && readFileSync(kept, 'utf8').includes('"c"'))
  await rm(fileOf('b'))
  await until(() => first.deleted.join() === 'b')
  t.match(first.members.refusal('b', Date.now() - 10_000), /node b was deleted/)
  t.equal(first.members.refusal('a', 0), undefined)
  await first.stop()

  await rm(fileOf('c'))
  const second = await start()
  t.match(second.members.refusal('b', 0), /node b was deleted/, 'kept')
  await until(() => second.deleted.join() === 'c')
  await writeFile(fileOf('c'), node('c'))
  await until(() => second.names()?.includes('c') === true)
  t.match(second.members.refusal('c', 0), /node c was deleted/, 'made again')
  t.equal(second.members.refusal('c', Date.now() + 1_000), undefined, 'and joined again')
  await second.stop()
})

t.test('a damaged file', async (t) => {
  await writeFile(kept, '{')
  const { members, stop } = await start()
  t.equal(members.refusal('b', 0), undefined, 'is as if there was none')
  await stop()
})
