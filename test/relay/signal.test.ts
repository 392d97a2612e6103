// What the relay sends to whom, without sockets.

import t from 'tap'
import { createLog } from '../../lib/log.ts'
import { decodeSignal, digestsText, encodeSignal, type SignedAnnouncement } from '../../lib/wire/signal.ts'
import { Signalling } from '../../relay/signal.ts'

type Session = { readonly node: string; readonly address: string }
const signed = (payload: string): SignedAnnouncement => ({ certificate: 'c', payload, signature: 's' })

/** A relay whose disk has announcements of these nodes, each named like its node. */
function start(...nodes: readonly string[]) {
  let sent: string[] = []
  const saved: string[] = []
  const signalling = new Signalling<Session>({
    relay: 'relay-1',
    mayReach: () => true,
    known: new Map(nodes.map((node) => [node, signed(node)])),
    save: (node) => void saved.push(node),
    remove: (node) => void saved.push(`-${node}`),
    send: ({ node }, bytes) => {
      const frame = decodeSignal(bytes.toString())!
      sent.push(`${node}: ${frame.kind}${frame.kind === 'announce' ? ` ${frame.announcement.payload}` : ''}`)
    },
    log: createLog('test', 'silent'),
  })
  const greet = (node: string, known?: string): Session => {
    const session = { node, address: '192.0.2.1:1' }
    signalling.open(session, 0)
    const hello = { kind: 'hello', version: 1, role: 'gateway', ...(known !== undefined && { known }) } as const
    signalling.message(session, encodeSignal(hello), 0)
    return session
  }
  const announce = (session: Session, payload: string) =>
    signalling.message(
      session,
      encodeSignal({ kind: 'announce', node: session.node, announcement: signed(payload) }),
      0,
    )
  const taken = () => {
    const frames = sent
    sent = []
    return frames
  }
  return { signalling, greet, announce, taken, saved }
}

t.test('a gateway is sent what it does not have', async (t) => {
  for (const [name, known, announced] of [
    ['one that says nothing of it, as those of earlier versions', undefined, ['b', 'c', 'd']],
    ['one that has all', ['b', 'c', 'd'], []],
    ['one that has an older one', ['b', 'c of before', 'd'], ['c']],
    ['one that has more than we', ['b', 'c', 'd', 'e'], []],
  ] as const) {
    const { greet, taken } = start('a', 'b', 'c', 'd')
    greet('a', known && digestsText(known.map(signed)))
    t.strictSame(taken(), ['a: welcome', ...announced.map((node) => `a: announce ${node}`)], name)
  }
})

t.test('a relay that restarts sends each gateway a welcome, and nothing that all know', async (t) => {
  const nodes = Array.from({ length: 50 }, (_, i) => `n${i}`)
  const { greet, announce, taken, saved } = start(...nodes)
  const known = digestsText(nodes.map(signed))
  for (const node of nodes) announce(greet(node, known), node)
  t.equal(taken().length, nodes.length)
  t.strictSame(saved, [])
})

t.test('what is new goes to everybody else once; who leaves is told to nobody', async (t) => {
  const { signalling, greet, announce, taken } = start()
  const [a, b] = [greet('a'), greet('b'), greet('c')]
  taken()
  announce(a, 'a1')
  announce(a, 'a1')
  t.strictSame(taken(), ['b: announce a1', 'c: announce a1'])
  signalling.close(b)
  announce(a, 'a2')
  t.strictSame(taken(), ['c: announce a2'])
})
