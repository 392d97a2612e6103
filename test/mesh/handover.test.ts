// A gateway that is told to end, for an upgrade or a drain, under packets both ways in both families: its successor has the
// role before it goes, and no packet is lost or doubled, whatever rung the pair is on, with the cloud and without. The role
// goes back and forth: each round ends the gateway that the last one made active.

import { setTimeout as sleep } from 'node:timers/promises'
import t from 'tap'
import type { Rung } from '../../lib/status.ts'
import { startCalls, startStream } from '../lab/first-contact.ts'
import type { Lab } from '../lab/lab.ts'
import type { NatType } from '../lab/nat.ts'
import {
  addressOf,
  failuresOf,
  gatewaysOf,
  getOnce,
  LONG,
  openMesh,
  outageMs,
  UNDER_LOAD,
  UNLESS_LONG,
  until,
} from './mesh.ts'

t.setTimeout(1_800_000)

const [POOL, OTHER] = ['bay', 'cape'] as const
/** From a node that is no gateway, and from one that is in turn the gateway that leaves and the one that follows. */
const PAIRS = [
  { family: 4, from: 'bay3-client', to: 'cape1-client' },
  { family: 6, from: 'bay3-shop', to: 'cape3-shop' },
  { family: 4, from: 'bay1-client', to: 'cape2-client' },
] as const
/** Two are there and back. */
const ROUNDS = Number(process.env['ROUNDS'] ?? (LONG ? 10 : 1))
const KILLED_AFTER_MS = LONG ? [40, 150, 300] : [150]
/** 100 packets per second: 1,000 each way. */
const [BEFORE_MS, AFTER_MS] = [3_000, 7_500]
const ENDED_MS = 4_000

const KILLED = 'killed in the middle of it'

type Row = {
  readonly name: string
  readonly nat: NatType
  readonly rung: Rung
  readonly cloudless?: boolean
}
const rows: readonly Row[] = [
  { name: 'direct', nat: 'port-restricted', rung: 'direct' },
  { name: 'direct, without the cloud', nat: 'port-restricted', rung: 'direct', cloudless: true },
  { name: "over the relay's UDP", nat: 'symmetric', rung: 'relay-udp' },
  { name: "over the relay's TCP", nat: 'udp-blocked', rung: 'relay-tcp' },
]
const roles = async (lab: Lab) =>
  (await gatewaysOf(lab)).filter(({ pool, role }) => pool === POOL && role !== undefined)

/** One is active, one stands by, and the paths of both to the other site's active gateway are on one rung. */
async function settled(lab: Lab, rung: Rung) {
  let seen: unknown
  return until(
    `one active, one standby, paths between the sites ${rung}`,
    async () => {
      const gateways = await gatewaysOf(lab)
      const of = (state: string, name: string) =>
        gateways.find(({ pool, role }) => pool === name && role?.state === state)?.node
      const [active, standby, remote] = [of('active', POOL), of('standby', POOL), of('active', OTHER)]
      const nodes = [active, standby, remote]
      const paths = gateways.flatMap(({ node, paths }) =>
        paths
          .filter((path) => nodes.includes(node) && nodes.includes(path.node))
          .map((path) => ({ from: node, to: path.node, rung: path.rung })),
      )
      seen = { active, standby, remote, paths }
      const isReady = paths.length === 4 && paths.every((path) => path.rung === rung)
      const isWhole = active !== undefined && standby !== undefined && remote !== undefined
      return isReady && isWhole && { active, standby, remote }
    },
    { seen: () => seen },
  )
}

const only = process.env['ONLY']
const skipOf = (name: string) => (only === undefined ? name !== 'direct' && UNLESS_LONG : only !== name)

for (const [index, { name, nat, rung, cloudless = false }] of rows.entries())
  t.test(name, { skip: skipOf(name) }, async (t) => {
    const lab = await openMesh(t, `h${index}`, {
      pools: [POOL, OTHER],
      nodes: 3,
      gateways: 2,
      underlay: 'v4',
      nat: new Map([
        [POOL, nat],
        [OTHER, nat],
      ]),
    })
    await getOnce(lab, 'bay3-client', `http://${addressOf(lab, 'cape1-shop', 4)}:8080/`, 4)

    for (let round = 1; round <= ROUNDS; round++) {
      const { active } = await settled(lab, rung)
      if (cloudless) for (const pool of [POOL, OTHER]) await lab.cut('relay', pool)
      const streams = PAIRS.flatMap(({ family, from, to }) => [
        { way: `IPv${family} to ${from}`, stream: startStream(lab, from, addressOf(lab, to, family)) },
        { way: `IPv${family} from ${from}`, stream: startStream(lab, to, addressOf(lab, from, family)) },
      ])
      await sleep(BEFORE_MS)
      const atMs = Date.now()
      await lab.stop(active, 'gateway', 'SIGTERM')
      const endedMs = Date.now() - atMs
      await sleep(AFTER_MS)
      for (const { way, stream } of streams) {
        const { received, lost, doubled, lostNumbers, longestGapMs } = await stream.stop()
        const what = `round ${round}, ${active} ended after ${endedMs} ms, ${way}`
        t.comment(`${what}: ${received} packets, ${lost} lost, ${doubled} doubled, longest gap ${longestGapMs} ms`)
        t.ok(received >= 1_000, `${what}: ${received} packets`)
        t.equal(lost, 0, `${what}: none lost (${lostNumbers.join(', ')})`)
        t.equal(doubled, 0, `${what}: none doubled`)
      }
      t.ok(endedMs <= ENDED_MS * UNDER_LOAD, `round ${round}: ended after ${endedMs} ms`)
      const [next] = (await roles(lab)).filter(({ role }) => role!.state === 'active')
      t.not(next?.node, active, 'the other has the role')
      await lab.startAgain(active, 'gateway')
      if (cloudless) await lab.heal()
    }
  })

const CALL_TIMEOUT_MS = 500
const AGAIN_MS = 3_000

t.test(KILLED, { skip: skipOf(KILLED) }, async (t) => {
  const lab = await openMesh(t, 'hk', { pools: [POOL, OTHER], nodes: 3, gateways: 2, underlay: 'v4' })
  const url = `http://${addressOf(lab, 'cape1-shop', 4)}:8080/`
  await getOnce(lab, 'bay3-client', url, 4)
  for (const who of ['active', 'standby', 'remote'] as const)
    for (const afterMs of KILLED_AFTER_MS) {
      const nodes = await settled(lab, 'direct')
      const calls = startCalls(lab, 'bay3-client', {
        url,
        family: 4,
        intervalMs: 20,
        timeoutMs: CALL_TIMEOUT_MS,
        successes: 0,
      })
      await sleep(1_000)
      const leaving = lab.stop(nodes.active, 'gateway', 'SIGTERM')
      await sleep(afterMs)
      await lab.stop(nodes[who], 'gateway')
      await sleep(200)
      await lab.startAgain(nodes[who], 'gateway')
      if (who !== 'active') await leaving
      await sleep(AGAIN_MS)
      const all = await calls.stop()
      const outage = outageMs(all)
      const what = `the ${who} gateway ${afterMs} ms after the word to end`
      t.comment(`${what}: calls failed for ${outage} ms (${failuresOf(all).length} of ${all.length})`)
      t.ok(outage <= AGAIN_MS * UNDER_LOAD, `${what}: calls fail for ${outage} ms`)
      t.equal(failuresOf(all.slice(-10)).length, 0, `${what}: and work again`)
      if (who !== 'active') await lab.startAgain(nodes.active, 'gateway')
    }
})
