// What a gateway finds again after a restart.

import { mkdtemp, readdir, rm, writeFile } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { setTimeout as wait } from 'node:timers/promises'
import t from 'tap'
import { loadState, type GatewayState } from '../../gateway/state-loop.ts'
import { createLog } from '../../lib/log.ts'
import type { SignedAnnouncement } from '../../lib/wire/signal.ts'

const log = createLog('test', 'silent')
const signed = (payload: string): SignedAnnouncement => ({ certificate: 'c', payload, signature: 's' })

async function start(t: Test, folder?: string) {
  const home = folder ?? (await mkdtemp(join(tmpdir(), 'fulmar-state-')))
  if (folder === undefined) t.teardown(() => rm(home, { recursive: true }))
  const life = new AbortController()
  t.teardown(() => life.abort())
  return { home, state: await loadState(home, log, life.signal) }
}
type Test = { teardown(fn: () => unknown): unknown }

const namesOf = ({ announcements }: GatewayState): readonly string[] => [...announcements.keys()]
const again = async (t: Test, home: string): Promise<GatewayState> => (await start(t, home)).state

/** Loads the state until it is as it should be, for 5 s at the most. */
async function until(t: Test, home: string, holds: (state: GatewayState) => boolean): Promise<GatewayState> {
  let state = await again(t, home)
  for (let i = 0; i < 100 && !holds(state); i++) {
    await wait(50)
    state = await again(t, home)
  }
  return state
}

t.test('who it is, and the number of its next announcement', async (t) => {
  const { home, state } = await start(t)
  t.equal(await state.nextSequence(), 1)
  const next = await again(t, home)
  t.equal(next.privateKey, state.privateKey)
  t.strictSame(next.ports, state.ports)
  t.equal(await next.nextSequence(), 2)
})

t.test('what peers announced, in the order in which they came to their keys', async (t) => {
  const { home, state } = await start(t)
  t.equal(state.announcements.size, 0)
  for (const node of ['dune1', 'bay1', 'cape1']) state.saveAnnouncement(node, signed(node))
  state.saveOrder(['dune1', 'bay1', 'cape1'])
  const kept = await until(t, home, (next) => namesOf(next).join() === 'dune1,bay1,cape1')
  t.strictSame(
    [...kept.announcements],
    ['dune1', 'bay1', 'cape1'].map((node) => [node, signed(node)]),
  )

  kept.saveAnnouncement('bay1', signed('later'))
  const later = await until(t, home, (next) => next.announcements.get('bay1')?.payload === 'later')
  t.strictSame(namesOf(later), ['dune1', 'bay1', 'cape1'], 'another announcement changes no order')
  t.equal((await readdir(join(home, 'gateway', 'announcements'))).length, 3, 'a file each')
})

t.test('without the order, or with one that cannot be read, nothing else is missed', async (t) => {
  const { home, state } = await start(t)
  for (const node of ['dune1', 'bay1']) state.saveAnnouncement(node, signed(node))
  await until(t, home, (next) => next.announcements.size === 2)
  for (const text of ['{', '{"a":1}', '["bay1","bay1",7]', '["nobody"]']) {
    await writeFile(join(home, 'gateway', 'order.json'), text)
    const next = await again(t, home)
    t.strictSame(namesOf(next).toSorted(), ['bay1', 'dune1'], text)
  }
})
