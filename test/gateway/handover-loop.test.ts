// A gateway of another pool, asked to follow a hand-over.

import { setTimeout as sleep } from 'node:timers/promises'
import t from 'tap'
import { linkLocalOf, ulaOf } from '../../gateway/addresses.ts'
import { decodeHandover, encodeHandover, type HandoverMessage } from '../../gateway/handover.ts'
import { runHandover } from '../../gateway/handover-loop.ts'
import type { Peer, PeerPlan } from '../../gateway/peers.ts'
import { createLog } from '../../lib/log.ts'
import type { Rung } from '../../lib/status.ts'

const ANSWER_POLLS = 40

const peerOf = (node: string, standby: boolean): Peer => ({
  pool: 'bay',
  node,
  wireguardKey: Buffer.alloc(32, node.charCodeAt(3)).toString('base64'),
  linkLocal: linkLocalOf(node),
  ula: ulaOf(node),
  cidrs: [],
  allowedIps: [`${linkLocalOf(node)}/128`],
  standby,
  announcement: {
    node,
    sequence: 1,
    wireguardKey: '',
    candidates: [],
    nat: { mapping: 'none', filtering: 'none', udp: 'open' },
  },
  candidates: [],
})

function start(t: { teardown: (fn: () => void) => void }) {
  const life = new AbortController()
  t.teardown(() => life.abort())
  const rungs = new Map<string, Rung>([['bay1', 'relay-tcp']])
  const replies: HandoverMessage[] = []
  const woken: string[] = []
  const plan = { pool: 'cape', active: true, peers: [peerOf('bay1', false), peerOf('bay2', true)] }
  const handover = runHandover(
    {
      mesh: {
        trigger: () => {},
        apply: async () => {},
        take: async () => {},
        rungOf: (node) => rungs.get(node),
        detour: async () => {},
        plan: () => plan as unknown as PeerPlan,
        waitingSince: () => undefined,
        endpointOf: () => undefined,
        setEndpoint: async () => {},
        move: () => {},
      },
      openDevice: async () => ({
        implementation: 'kernel',
        setPeers: async () => {},
        setEndpoint: async () => {},
        observe: async () => [],
        setPort: async () => {},
      }),
      send: (_device, _to, datagram) => void replies.push(decodeHandover(datagram)!),
      wake: (node) => void woken.push(node),
      roles: { handOver: () => {}, forgetHandOver: () => {} },
      log: createLog('test', 'silent'),
    },
    life.signal,
  )
  const ask = async (successor: string): Promise<readonly HandoverMessage[]> => {
    replies.length = 0
    const message = encodeHandover({ kind: 'leave', reply: false, id: 7, successor, port: 0 })
    handover.onMessage('fm-tcp', linkLocalOf('bay1'), message)
    // A port of the kernel's choice is looked for before the last answer; for most questions there is none to wait for.
    for (let i = 0; i < ANSWER_POLLS && (replies.at(-1)?.port ?? 0) === 0; i++) await sleep(5)
    return [...replies]
  }
  return { ask, rungs, woken }
}

t.test('one whose path to the successor is cold wakes it and says that it is at it', async (t) => {
  const { ask, rungs, woken } = start(t)
  t.match(await ask('bay2'), [{ kind: 'leave', reply: true, port: 0 }])
  t.strictSame(woken, ['bay2'])
  rungs.set('bay2', 'relay-tcp')
  const answers = await ask('bay2')
  t.equal(answers[0]?.port, 0)
  t.ok((answers.at(-1)?.port ?? 0) > 0, 'and accepts once there is a path')
  t.strictSame(woken, ['bay2'])
})

t.test('a successor of another pool is nobody', async (t) => {
  const { ask, woken } = start(t)
  t.strictSame(await ask('dune1'), [])
  t.strictSame(woken, [])
})
