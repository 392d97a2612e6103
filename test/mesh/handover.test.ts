// A gateway that is told to end, for an upgrade or a drain, under packets both ways: its successor has the role before it
// goes. What is lost on the way is counted.

import { setTimeout as sleep } from 'node:timers/promises'
import t from 'tap'
import { startStream } from '../lab/first-contact.ts'
import { addressOf, gatewaysOf, getOnce, openMesh, until, waysOf } from './mesh.ts'

t.setTimeout(300_000)

const [CLIENT, SERVER] = ['bay3-client', 'cape1-client'] as const
const ROUNDS = 4
/** Of 100 packets/s each way: prefixes move to the successor before every agent does, so what is sent meanwhile is lost. */
const LOST_MAX = 50

const lab = await openMesh(t, 'h', { pools: ['bay', 'cape'], nodes: 3, gateways: 2, gatewayFlags: ['--warm', 'all'] })
await getOnce(lab, CLIENT, `http://${addressOf(lab, 'cape1-shop', 4)}:8080/`, 4)

const bay = async () => (await gatewaysOf(lab)).filter(({ pool, role }) => pool === 'bay' && role !== undefined)

t.test('hand-over by SIGTERM', async (t) => {
  for (let round = 1; round <= ROUNDS; round++) {
    const active = await until('one active, one standby, all paths between the sites direct', async () => {
      const gateways = await bay()
      const ways = (await waysOf(lab)).filter(({ from, to }) => from !== 'cloud' && to !== 'cloud')
      const settled = ways.length >= 6 && ways.every(({ path }) => path.rung === 'direct')
      const standby = gateways.find(({ role }) => role!.state === 'standby')
      return settled && standby !== undefined && gateways.find(({ role }) => role!.state === 'active')?.node
    })
    const streams = [
      startStream(lab, CLIENT, addressOf(lab, SERVER, 4)),
      startStream(lab, SERVER, addressOf(lab, CLIENT, 4)),
    ]
    await sleep(3_000)
    const atMs = Date.now()
    await lab.stop(active, 'gateway', 'SIGTERM')
    const endedMs = Date.now() - atMs
    await sleep(5_000)
    for (const [index, stream] of streams.entries()) {
      const { sent, lost, doubled, longestGapMs } = await stream.stop()
      const way = index === 0 ? 'to the pool' : 'from the pool'
      t.comment(
        `round ${round}, ${active} ended after ${endedMs} ms, ${way}: ${lost} of ${sent} lost, ${doubled} doubled, longest gap ${longestGapMs} ms`,
      )
      t.ok(lost <= LOST_MAX, `round ${round}, ${way}: ${lost} lost`)
    }
    const [next] = (await bay()).filter(({ role }) => role!.state === 'active')
    t.not(next?.node, active, 'the other has the role')
    await lab.startAgain(active, 'gateway')
  }
})
