// A direct path that loses one packet in ten, each way, for minutes: it stays where it is, since the relay's packets would
// be lost as well, and a path that is left and taken again loses more than it spares.

import t from 'tap'
import { setTimeout as sleep } from 'node:timers/promises'
import { startStream } from '../lab/first-contact.ts'
import { addressOf, directOnce, LONG, openMesh, waysOf } from './mesh.ts'

const LOSS = 0.1
const LOSSY_MS = LONG ? 600_000 : 15_000
/** The streams' share of losses may be so far from what was asked. */
const TOLERANCE = 0.05
/** When a path moved is told by the wall clock, which may be set a little. */
const CLOCK_MS = 1_000
const PAIR = ['fern', 'moss'] as const
/** Each way, between pods of their own. */
const STREAMS = [
  { family: 4, hosts: ['fern1-client', 'moss1-shop'] },
  { family: 6, hosts: ['fern1-shop', 'moss1-client'] },
] as const

t.setTimeout(LOSSY_MS + 120_000)

/** In the core, of everything between sites: echoes, probes and packets alike. */
const RULES = `table inet lossy {
  chain forward {
    type filter hook forward priority filter + 1; policy accept;
    meta l4proto udp numgen random mod 100 < ${LOSS * 100} counter drop
  }
}
`

t.test(`${LOSS * 100} % loss for ${LOSSY_MS / 1000} s: no switch`, async (t) => {
  const nat = new Map([
    ['fern', 'port-restricted'],
    ['moss', 'restricted'],
  ] as const)
  const lab = await openMesh(t, 'l', { pools: PAIR, nodes: 1, nat })
  const before = await directOnce(lab, PAIR)
  const { code, stderr } = await lab.exec('core', ['nft', '-f', '-'], { input: RULES })
  if (code !== 0) throw new Error(stderr)

  const streams = STREAMS.flatMap(({ family, hosts: [a, b] }) => [
    startStream(lab, a, addressOf(lab, b, family)),
    startStream(lab, b, addressOf(lab, a, family)),
  ])
  await sleep(LOSSY_MS)
  const reports = await Promise.all(streams.map((stream) => stream.stop()))
  for (const { received, lost, doubled } of reports) {
    const share = lost / (received + lost)
    t.ok(Math.abs(share - LOSS) < TOLERANCE, `${lost} of ${received + lost} packets lost`)
    t.equal(doubled, 0, 'none doubled')
  }
  for (const { from, to, path } of await waysOf(lab)) {
    const first = before.find((way) => way.from === from && way.to === to)
    if (first === undefined) continue
    t.equal(path.rung, 'direct', `${from} to ${to} is direct: ${path.reason}`)
    t.ok(Math.abs(path.since - first.path.since) < CLOCK_MS, `${from} to ${to} has not moved`)
    t.comment(`${from} to ${to}: of its echoes ${path.loss} were lost`)
  }
})
