// Which announcements are kept, and for how long.

import 'reflect-metadata'
import { createPrivateKey, X509Certificate } from 'node:crypto'
import t from 'tap'
import { signAnnouncement } from '../../gateway/announcement.ts'
import { runAnnouncements } from '../../gateway/announcements-loop.ts'
import { createAuthority, createClient, validFor } from '../../lib/certificates.ts'
import { createLog } from '../../lib/log.ts'
import type { SignedAnnouncement } from '../../lib/wire/signal.ts'

const ca = await createAuthority('mesh', validFor(Date.now(), 3650))

async function nodeOf(node: string, sequence: number) {
  const client = { commonName: `system:node:${node}`, organization: 'system:nodes' }
  const { certificatePem, keyPem } = await createClient(ca, client, validFor(Date.now(), 30))
  const wireguardKey = Buffer.alloc(32, node.charCodeAt(0)).toString('base64')
  const announcement = { node, sequence, wireguardKey, candidates: [], nat: UNKNOWN }
  const signed = signAnnouncement(announcement, new X509Certificate(certificatePem), createPrivateKey(keyPem))
  return { certificatePem, keyPem, signed }
}
const UNKNOWN = { mapping: 'unknown', filtering: 'unknown', udp: 'unknown' } as const

async function start(t: { teardown: (fn: () => void) => void }, nodes: () => ReadonlySet<string>) {
  const life = new AbortController()
  t.teardown(() => life.abort())
  const kept = new Map<string, SignedAnnouncement>()
  const { certificatePem, keyPem } = await nodeOf('own', 1)
  const announcements = runAnnouncements(
    {
      identity: { node: 'own', certificatePem, keyPem, caPem: ca.certificatePem },
      state: {
        announcements: new Map(),
        nextSequence: async () => 1,
        saveAnnouncement: (node, signed) => void kept.set(node, signed),
        removeAnnouncement: (node) => void kept.delete(node),
        saveOrder: () => {},
      },
      facts: () => ({ wireguardKey: '', candidates: [], nat: UNKNOWN, role: undefined }),
      nodes,
      onOwn: () => {},
      log: createLog('test', 'silent'),
    },
    life.signal,
  )
  return { announcements, kept }
}

t.test('one of a node that the cluster has not named for a week is dropped', async (t) => {
  let named: ReadonlySet<string> = new Set()
  const { announcements, kept } = await start(t, () => named)
  for (const node of ['bay', 'cape', 'dune']) announcements.receive(node, (await nodeOf(node, 1)).signed)
  const there = () => [[...announcements.peers.keys()].join(), [...kept.keys()].join()]
  const DAY_MS = 24 * 3_600_000
  const rows: readonly [day: number, nodes: readonly string[], kept: string][] = [
    [0, ['own', 'bay'], 'bay,cape,dune'],
    [5, ['own', 'bay', 'cape'], 'bay,cape,dune'],
    [6, ['own', 'bay'], 'bay,cape,dune'],
    [7, [], 'bay,cape,dune'],
    [7, ['bay', 'cape'], 'bay,cape,dune'],
    [7, ['own', 'bay'], 'bay,cape'],
    [12.9, ['own', 'bay'], 'bay,cape'],
    [13, ['own', 'bay'], 'bay'],
  ]
  for (const [day, nodes, left] of rows) {
    named = new Set(nodes)
    announcements.forget(day * DAY_MS)
    t.strictSame(there(), [left, left], `day ${day}, with ${nodes.join(', ') || 'nothing'}`)
  }
  t.ok(announcements.receive('dune', (await nodeOf('dune', 2)).signed), 'and is news when it comes again')
})
