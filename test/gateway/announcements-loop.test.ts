// Which announcements are kept, and for how long.

import 'reflect-metadata'
import { createPrivateKey, X509Certificate } from 'node:crypto'
import t from 'tap'
import { signAnnouncement } from '../../gateway/announcement.ts'
import { runAnnouncements } from '../../gateway/announcements-loop.ts'
import { createAuthority, createClient, validFor } from '../../lib/certificates.ts'
import { createClock } from '../../lib/clock.ts'
import { createLog } from '../../lib/log.ts'
import { GONE_AFTER_MS } from '../../lib/members.ts'
import type { SignedAnnouncement } from '../../lib/wire/signal.ts'

const HOUR_MS = 3_600_000
const DAY_MS = 24 * HOUR_MS
const ca = await createAuthority('mesh', validFor(Date.now(), 3650))

async function nodeOf(node: string, sequence: number, atMs = Date.now()) {
  const client = { commonName: `system:node:${node}`, organization: 'system:nodes' }
  const { certificatePem, keyPem } = await createClient(ca, client, validFor(atMs, 30))
  const wireguardKey = Buffer.alloc(32, node.charCodeAt(0)).toString('base64')
  const announcement = { node, sequence, wireguardKey, candidates: [], nat: UNKNOWN }
  const signed = signAnnouncement(announcement, new X509Certificate(certificatePem), createPrivateKey(keyPem))
  return { certificatePem, keyPem, signed }
}
const UNKNOWN = { mapping: 'unknown', filtering: 'unknown', udp: 'unknown' } as const

async function start(
  t: { teardown: (fn: () => void) => void },
  nodes: () => ReadonlyMap<string, string>,
  { clock = createClock(0, () => undefined, Date.now), known = new Map<string, SignedAnnouncement>() } = {},
) {
  const late: string[] = []
  const life = new AbortController()
  t.teardown(() => life.abort())
  const kept = new Map<string, SignedAnnouncement>()
  const { certificatePem, keyPem } = await nodeOf('own', 1)
  const announcements = runAnnouncements(
    {
      identity: { node: 'own', certificatePem, keyPem, caPem: ca.certificatePem },
      state: {
        announcements: known,
        nextSequence: async () => 1,
        saveAnnouncement: (node, signed) => void kept.set(node, signed),
        removeAnnouncement: (node) => void kept.delete(node),
        saveOrder: () => {},
      },
      facts: () => ({ wireguardKey: '', candidates: [], nat: UNKNOWN, role: undefined }),
      nodes,
      onDropped: () => {},
      onLate: (node) => void late.push(node),
      clock,
      peerGraceMs: 365 * DAY_MS,
      onOwn: () => {},
      log: createLog('test', 'silent'),
    },
    life.signal,
  )
  return { announcements, kept, late }
}

const SOON_MS = GONE_AFTER_MS + 1
const named = (...nodes: readonly string[]) => new Map(nodes.map((name) => [name.split(':')[0]!, name]))

t.test('one of a node that was deleted, or never came, is dropped', async (t) => {
  let nodes: ReadonlyMap<string, string> = new Map()
  const { announcements, kept } = await start(t, () => nodes)
  for (const node of ['bay', 'cape', 'dune']) announcements.receive(node, (await nodeOf(node, 1)).signed)
  const there = () => [[...announcements.peers.keys()].join(), [...kept.keys()].join()]
  const rows: readonly [atMs: number, nodes: readonly string[], kept: string][] = [
    [0, ['own', 'bay'], 'bay,cape,dune'],
    [5 * DAY_MS, ['own', 'bay', 'cape'], 'bay,cape,dune'],
    [5 * DAY_MS + 1, ['own', 'bay'], 'bay,cape,dune'],
    [5 * DAY_MS + 1000, ['own', 'bay', 'cape'], 'bay,cape,dune'],
    [6 * DAY_MS, [], 'bay,cape,dune'],
    [6 * DAY_MS + SOON_MS, ['bay'], 'bay,cape,dune'],
    [6 * DAY_MS + 2 * SOON_MS, ['own', 'bay'], 'bay,cape,dune'],
    [6 * DAY_MS + 3 * SOON_MS, ['own', 'bay'], 'bay,dune'],
    [7 * DAY_MS - 1, ['own', 'bay'], 'bay,dune'],
    [7 * DAY_MS, ['own', 'bay'], 'bay'],
  ]
  for (const [atMs, present, left] of rows) {
    nodes = named(...present)
    announcements.look(atMs)
    t.strictSame(there(), [left, left], `day ${atMs / DAY_MS}, with ${present.join(', ') || 'nothing'}`)
  }
  t.ok(announcements.receive('dune', (await nodeOf('dune', 2)).signed), 'and is news when it comes again')
})

t.test('a node that is made again joins again', async (t) => {
  let nodes = named('own:1', 'bay:1', 'cape:1')
  const { announcements } = await start(t, () => nodes)
  const there = () => [...announcements.peers.keys()].join()
  for (const node of ['bay', 'cape']) announcements.receive(node, (await nodeOf(node, 1)).signed)
  announcements.look(0)

  nodes = named('own:1', 'bay:2', 'cape:1')
  announcements.look(1)
  t.equal(there(), 'cape', 'another UID is another node')
  t.notOk(
    announcements.receive('bay', (await nodeOf('bay', 7, Date.now() - HOUR_MS)).signed),
    'which the old one is not',
  )
  t.equal(there(), 'cape')
  t.ok(
    announcements.receive('bay', (await nodeOf('bay', 1, Date.now() + HOUR_MS / 60)).signed),
    'but the one that joined',
  )

  nodes = named('own:5', 'bay:6', 'cape:7')
  announcements.look(2)
  t.equal(there(), 'cape,bay', 'where we are another ourselves it is another API')
})

t.test('a gateway that starts in 1970', async (t) => {
  let wallMs = 30_000
  const clock = createClock(
    0,
    () => undefined,
    () => wallMs,
  )
  // Certificates of the peers that it knows tell it that it is later.
  const known = new Map([['bay', (await nodeOf('bay', 1, Date.now() - 60 * DAY_MS)).signed]])
  const { announcements, late } = await start(t, () => named('own'), { clock, known })
  t.same([...announcements.peers.keys()], ['bay'], 'knows the peers that it knew, whatever their certificates')
  t.ok(clock.isBehind())
  t.ok(announcements.receive('bay', (await nodeOf('bay', 2)).signed), 'and hears of them')
  t.notOk(announcements.receive('cape', (await nodeOf('cape', 1)).signed), 'takes no new one')
  t.same([...announcements.peers.keys()], ['bay'])

  announcements.lookAtWaiting()
  t.same(late, [], 'as long as it is so')
  wallMs = Date.now()
  announcements.lookAtWaiting()
  t.same(late, ['cape'], 'and does when its clock is set')
  t.same([...announcements.peers.keys()], ['bay', 'cape'])
  announcements.lookAtWaiting()
  t.same(late, ['cape'], 'once')
})

t.test('a new peer whose certificate ended, and one that was known', async (t) => {
  const ended = Date.now() - 40 * DAY_MS
  const known = new Map([['bay', (await nodeOf('bay', 1, ended)).signed]])
  const { announcements, late } = await start(t, () => named('own'), { known })
  t.same([...announcements.peers.keys()], ['bay'])
  t.notOk(announcements.receive('cape', (await nodeOf('cape', 1, ended)).signed))
  announcements.lookAtWaiting()
  t.same(late, [])
  t.ok(announcements.receive('cape', (await nodeOf('cape', 1)).signed), 'it renewed')

  const tooLong = new Map([['dune', (await nodeOf('dune', 1, Date.now() - 400 * DAY_MS)).signed]])
  t.same(
    [...(await start(t, () => named('own'), { known: tooLong })).announcements.peers.keys()],
    [],
    'after its grace',
  )
})
