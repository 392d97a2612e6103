// By which relay a node is reached, as a table.

import { Duplex } from 'node:stream'
import t from 'tap'
import { createWays } from '../../relay/forward.ts'
import { NodeDialError, type NodeDialFailure } from '../../relay/node-dial.ts'

const NOW = 1_000_000_000
const NEVER = new AbortController().signal

type Row = {
  readonly name: string
  /** What the own session answers; undefined for none. */
  readonly own?: 'stream' | NodeDialFailure
  /** Replicas that hold the node, with what they answer. */
  readonly others?: Readonly<Record<string, 'stream' | NodeDialFailure>>
  readonly ownLostMinutes?: number
  readonly lostMinutes?: number
  /** Who was asked, in order. */
  readonly asked: readonly string[]
  /** Whose stream it is, or what is said. */
  readonly outcome: string
}

const rows: readonly Row[] = [
  { name: 'an own session', own: 'stream', others: { b: 'stream' }, asked: ['own'], outcome: 'own' },
  { name: 'another relay has it', others: { b: 'stream', c: 'stream' }, asked: ['b'], outcome: 'b' },
  { name: 'the own session is dead', own: 'offline', others: { b: 'stream' }, asked: ['own', 'b'], outcome: 'b' },
  { name: 'so is the other', own: 'offline', others: { b: 'offline' }, asked: ['own', 'b'], outcome: 'offline: by b' },
  { name: 'the first of two others is gone', others: { b: 'offline', c: 'stream' }, asked: ['b', 'c'], outcome: 'c' },
  { name: 'the node refuses', own: 'refused', others: { b: 'stream' }, asked: ['own'], outcome: 'refused: by own' },
  { name: 'its target failed', others: { b: 'failed', c: 'stream' }, asked: ['b'], outcome: 'failed: by b' },
  { name: 'never seen', asked: ['own'], outcome: 'offline: edge-7 has not connected' },
  { name: 'lost here', ownLostMinutes: 14, asked: ['own'], outcome: 'offline: edge-7 offline 14m' },
  { name: 'lost there', lostMinutes: 14, asked: ['own'], outcome: 'offline: edge-7 offline 14m' },
  {
    name: 'the last who saw it counts',
    ownLostMinutes: 20,
    lostMinutes: 14,
    asked: ['own'],
    outcome: 'offline: edge-7 offline 14m',
  },
  {
    name: 'which may be this relay',
    ownLostMinutes: 14,
    lostMinutes: 20,
    asked: ['own'],
    outcome: 'offline: edge-7 offline 14m',
  },
]

for (const { name, own, others = {}, ownLostMinutes, lostMinutes, asked, outcome } of rows)
  t.test(name, async (t) => {
    const who: string[] = []
    const streams = new Map<Duplex, string>()
    const answer = async (from: string, what: 'stream' | NodeDialFailure, text = `by ${from}`): Promise<Duplex> => {
      who.push(from)
      if (what !== 'stream') throw new NodeDialError(what, text)
      const stream = new Duplex()
      streams.set(stream, from)
      return stream
    }
    const at = (minutes: number | undefined) => (minutes === undefined ? undefined : NOW - minutes * 60_000)
    const absent = ownLostMinutes === undefined ? 'edge-7 has not connected' : `edge-7 offline ${ownLostMinutes}m`
    const { dial, absence } = createWays({
      own: {
        dial: () => (own === undefined ? answer('own', 'offline', absent) : answer('own', own)),
        absence: () => (own === undefined ? absent : undefined),
        lostAt: () => at(ownLostMinutes),
      },
      holders: () => Object.keys(others),
      lostAt: () => at(lostMinutes),
      forward: (replica) => answer(replica, others[replica]!),
      now: () => NOW,
    })
    t.equal(absence('edge-7') === undefined, own !== undefined || Object.keys(others).length > 0)
    const found = await dial('edge-7', { host: 'edge-7', port: 10250 }, NEVER).then(
      (stream) => streams.get(stream),
      (error: NodeDialError) => `${error.failure}: ${error.message}`,
    )
    t.equal(found?.replace(/(\d+m).*/, '$1'), outcome)
    t.same(who, asked)
  })

t.test('who does not want it any more asks nobody else', async (t) => {
  const client = new AbortController()
  let asked = 0
  const { dial } = createWays({
    own: { dial: () => Promise.reject(new Error('not asked')), absence: () => 'absent', lostAt: () => undefined },
    holders: () => ['b', 'c'],
    lostAt: () => undefined,
    forward: () => {
      asked++
      client.abort()
      return Promise.reject(new NodeDialError('offline', 'gone'))
    },
    now: () => NOW,
  })
  await t.rejects(dial('edge-7', { host: 'edge-7', port: 1 }, client.signal), { message: 'gone' })
  t.equal(asked, 1)
})
