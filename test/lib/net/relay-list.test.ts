import { existsSync, readFileSync, writeFileSync } from 'node:fs'
import { mkdtemp, rm } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import t from 'tap'
import { createLog } from '../../../lib/log.ts'
import { openRelayList } from '../../../lib/net/relay-list.ts'
import type { Replica } from '../../../lib/replicas.ts'
import { until } from '../until.ts'

const log = createLog('test', 'silent')
const JOINED = ['https://192.0.2.1:443']
const A: Replica = ['https://192.0.2.1:443', 'https://[2001:db8::1]:443']
const B: Replica = ['https://192.0.2.2:443']
const folder = await mkdtemp(join(tmpdir(), 'fulmar-relays-'))
t.teardown(() => rm(folder, { recursive: true }))
const open = (file: string, configured: readonly Replica[] = []) =>
  openRelayList({ configured, joined: JOINED, file: join(folder, file, 'relays.json'), log })

t.test('what relays tell is followed, and known after a restart', async (t) => {
  const list = await open('told')
  t.same(list.current(), [JOINED], 'at first those that the node joined by')
  let changes = 0
  list.onChange(() => changes++)
  list.told([A, B])
  list.told([A, B])
  t.same(list.current(), [A, B])
  t.equal(changes, 1, 'what is known is no change')
  await until(() => existsSync(join(folder, 'told', 'relays.json')))
  t.same((await open('told')).current(), [A, B])
})

t.test('what is configured counts, whatever relays tell', async (t) => {
  const list = await open('configured', [B])
  list.onChange(() => t.fail('no change'))
  list.told([A])
  t.same(list.current(), [B])
  t.notOk(existsSync(join(folder, 'configured')))
})

t.test('a damaged file is as if there was none', async (t) => {
  const file = join(folder, 'told', 'relays.json')
  for (const text of ['{', '[]', '[["ftp://192.0.2.1"]]', '{}']) {
    writeFileSync(file, text)
    t.same((await open('told')).current(), [JOINED], text)
  }
  t.equal(readFileSync(file, 'utf8'), '{}', 'and stays as it is until a relay tells more')
})
