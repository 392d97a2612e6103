// A pool whose gateway dies: its process, its whole node, or its link to the LAN, each with the cloud and without. Calls
// through the pool go on within seconds over the standby, and the old gateway's return disturbs nobody.

import { writeFileSync } from 'node:fs'
import { setTimeout as sleep } from 'node:timers/promises'
import t from 'tap'
import { startCalls, startStream } from '../lab/first-contact.ts'
import { cgroupRoot } from '../lab/machine.ts'
import { cgroupOf, linkOf } from '../lab/names.ts'
import {
  addressOf,
  failuresOf,
  gatewaysOf,
  getOnce,
  openMesh,
  outageMs,
  UNDER_LOAD,
  UNLESS_LONG,
  until,
} from './mesh.ts'

t.setTimeout(600_000)

const [POOL, OTHER] = ['bay', 'cape'] as const
/** Its node is no gateway of its pool: what it sends crosses the LAN first. */
const [CLIENT, SERVER] = ['bay3-client', 'cape1-shop'] as const
const AGAIN_MS = 3_000
/** What may be lost or late as the old gateway comes back. */
const BACK_MS = 1_000
const CALL_TIMEOUT_MS = 500

const lab = await openMesh(t, 'f', { pools: [POOL, OTHER], nodes: 3, gateways: 2, gatewayFlags: [] })
const server = addressOf(lab, SERVER, 4)
const router = lab.topology.pools.find(({ name }) => name === POOL)!.router!

const roles = async () =>
  (await gatewaysOf(lab)).flatMap(({ pool, node, role }) =>
    pool === POOL && role !== undefined ? [{ node, ...role }] : [],
  )

/** One is active, the other follows it, and all paths that a failure would want are direct. */
async function ready(what: string): Promise<{ readonly active: string; readonly standby: string }> {
  let seen: unknown
  return until(
    `${what}: one active, one standby, direct paths to both`,
    async () => {
      const [a, b] = (await roles()).toSorted((x, y) => (x.state < y.state ? -1 : 1))
      const gateways = await gatewaysOf(lab)
      const paths = gateways.flatMap(({ pool, node, paths }) =>
        paths.flatMap((path) =>
          [pool, path.pool].every((name) => name === POOL || name === OTHER) ? [{ node, path }] : [],
        ),
      )
      seen = { roles: [a, b], paths: paths.map(({ node, path }) => [node, path.node, path.rung]) }
      if (a?.state !== 'active' || b?.state !== 'standby' || b.active !== a.node) return false
      const [first] = gateways.filter(({ pool, role }) => pool === OTHER && role?.state === 'active')
      const isDirect = (from: string, to: string | undefined) =>
        paths.some(({ node, path }) => node === from && path.node === to && path.rung === 'direct')
      const wanted = [a.node, b.node].every((node) => isDirect(node, first?.node) && isDirect(first?.node ?? '', node))
      return wanted && { active: a.node, standby: b.node }
    },
    { everyMs: 500, seen: () => seen },
  )
}

type Fault = {
  readonly name: string
  readonly strike: (node: string) => Promise<void> | void
  readonly mend: (node: string) => Promise<void> | void
}
const freeze = (node: string, frozen: boolean): void =>
  writeFileSync(`${cgroupRoot()}/${cgroupOf(lab.id)}/${node}/cgroup.freeze`, frozen ? '1' : '0')
const link = async (node: string, state: 'up' | 'down'): Promise<void> => {
  await lab.exec(router, ['ip', 'link', 'set', linkOf('port', lab.id, node), state])
}
const faults: readonly Fault[] = [
  {
    name: 'its process is killed',
    strike: (node) => lab.stop(node, 'gateway'),
    mend: (node) => lab.startAgain(node, 'gateway'),
  },
  { name: 'its node is frozen', strike: (node) => freeze(node, true), mend: (node) => freeze(node, false) },
  { name: 'its link is cut', strike: (node) => link(node, 'down'), mend: (node) => link(node, 'up') },
]

/** `npm test` has each fault once: every other one without the cloud. */
const isLong = (fault: number, cloud: 'with the cloud' | 'without') => (fault % 2 === 0) === (cloud === 'without')

for (const cloud of ['with the cloud', 'without'] as const)
  for (const [fault, { name, strike, mend }] of faults.entries())
    t.test(`the active gateway: ${name}, ${cloud}`, { skip: isLong(fault, cloud) && UNLESS_LONG }, async (t) => {
      await getOnce(lab, CLIENT, `http://${server}:8080/`, 4)
      const { active, standby } = await ready(name)
      if (cloud === 'without') for (const pool of [POOL, OTHER]) await lab.cut('relay', pool)
      const calls = startCalls(lab, CLIENT, {
        url: `http://${server}:8080/`,
        family: 4,
        intervalMs: 20,
        timeoutMs: CALL_TIMEOUT_MS,
        successes: 0,
      })
      const download = lab.spawn(
        CLIENT,
        [
          'curl',
          '--silent',
          '--limit-rate',
          '200k',
          '--max-time',
          '120',
          '-o',
          '/dev/null',
          '--write-out',
          '%{http_code} %{size_download}',
          `http://${server}:8080/bytes?n=4000000`,
        ],
        { stdio: ['ignore', 'pipe', 'inherit'] },
      )
      let summary = ''
      download.stdout!.on('data', (chunk: Buffer) => (summary += String(chunk)))
      const downloaded = new Promise<void>((resolve) => download.once('close', () => resolve()))
      await sleep(1_000)

      const struckAt = Date.now()
      await strike(active)
      const took = await until(
        'the standby is active',
        async () => {
          const found = (await roles()).find(({ node }) => node === standby)
          return found?.state === 'active' && found
        },
        { everyMs: 50 },
      )
      await sleep(2_000)
      const during = await calls.stop()
      const outage = outageMs(during.filter(({ at }) => at >= struckAt - CALL_TIMEOUT_MS))
      const failedAt = failuresOf(during).map(({ at }) => at - struckAt)
      t.comment(
        `${standby} active in term ${took.term} ${took.since - struckAt} ms after the fault; calls failed for ${outage} ms (begun at ${failedAt.join(', ')}; ${during.length} in all)`,
      )
      t.ok(outage <= AGAIN_MS * UNDER_LOAD, `calls fail for ${outage} ms`)
      const last = during.slice(-10)
      t.equal(failuresOf(last).length, 0, `and work again: ${JSON.stringify(last.map(({ ms, error }) => error ?? ms))}`)

      const streams = [
        startStream(lab, CLIENT, addressOf(lab, 'cape1-client', 4)),
        startStream(lab, 'cape1-client', addressOf(lab, CLIENT, 4)),
      ]
      await sleep(1_000)
      const mendedAt = Date.now()
      await mend(active)
      await until(`${active} follows`, async () =>
        (await roles()).some(
          ({ node, state, active: whom }) => node === active && state === 'standby' && whom === standby,
        ),
      )
      await sleep(2_000)
      t.comment(`${active} stands by ${Date.now() - mendedAt - 2_000} ms after its return`)
      for (const [index, stream] of streams.entries()) {
        const { lost, doubled, longestGapMs, received } = await stream.stop()
        const way = index === 0 ? 'to the pool' : 'from the pool'
        t.comment(`${way}: ${received} packets, ${lost} lost, ${doubled} doubled, longest gap ${longestGapMs} ms`)
        t.ok(received > 100 && lost <= BACK_MS / 10, `${way}: ${lost} lost as the old gateway comes back`)
        t.ok(
          doubled <= BACK_MS / 10 && longestGapMs <= BACK_MS * UNDER_LOAD,
          `${way}: ${doubled} doubled, a gap of ${longestGapMs} ms`,
        )
      }
      await downloaded
      t.equal(summary, '200 4000000', 'a TCP connection lives through all of it')
      await lab.heal()
    })
