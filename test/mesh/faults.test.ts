// What goes wrong at the edge, done to a mesh at work: links that lose UDP, a cloud that is away, daemons that die, and
// kernel state that somebody else removes. Where a promise is in seconds, it is held times UNDER_LOAD.

import { once } from 'node:events'
import { readFileSync } from 'node:fs'
import { setTimeout as sleep } from 'node:timers/promises'
import t from 'tap'
import { natName } from '../../lib/nat-text.ts'
import type { Call } from '../lab/caller.ts'
import type { DaemonName } from '../lab/daemons.ts'
import { movesOf, startCalls } from '../lab/first-contact.ts'
import type { Lab } from '../lab/lab.ts'
import { cgroupRoot } from '../lab/machine.ts'
import { cgroupOf } from '../lab/names.ts'
import {
  directOnce,
  failuresOf,
  gatewaysOf,
  get,
  getOnce,
  openMesh,
  outageMs,
  UNDER_LOAD,
  until,
  waysOf,
  waysOnce,
} from './mesh.ts'

t.setTimeout(240_000)

const PAIR = ['brine', 'kelp'] as const
/** The client is on the node that is not its pool's gateway: what it sends crosses a LAN first. */
const CLIENT = 'brine2-client'
const AGENT = 'brine2'
const [GATEWAY, PEER] = ['brine1', 'kelp1'] as const
const CALL_TIMEOUT_MS = 1_000
const BY_NAME = 'http://web-kelp.shop.svc.cluster.local/'

const lab = await openMesh(t, 'x', {
  pools: PAIR,
  nodes: 2,
  nat: new Map([
    [PAIR[0], 'port-restricted'],
    [PAIR[1], 'restricted'],
  ]),
})
await directOnce(lab, PAIR)
const clusterIp = (await lab.exec(CLIENT, ['getent', 'ahostsv4', 'web-kelp.shop.svc.cluster.local'])).stdout.split(
  ' ',
)[0]!
const BY_ADDRESS = `http://${clusterIp}/`

t.test('a download survives the loss of UDP, and status says why', async (t) => {
  const bytes = 40_000_000
  const [before] = await directOnce(lab, PAIR)
  t.equal(before!.path.reason, '', 'a direct path needs no reason')

  const url = `http://${clusterIp}/bytes?n=${bytes}`
  const options = [
    '--silent',
    '--limit-rate',
    '10M',
    '--max-time',
    '90',
    '--write-out',
    '%{stderr}%{num_connects} %{http_code} %{size_download}',
  ]
  const download = lab.spawn(CLIENT, ['curl', ...options, url], { stdio: ['ignore', 'pipe', 'pipe'] })
  const progress = { bytes: 0, summary: '' }
  download.stdout!.on('data', (chunk: Buffer) => (progress.bytes += chunk.length))
  download.stderr!.on('data', (chunk: Buffer) => (progress.summary += String(chunk)))
  const ended = once(download, 'close').then(() => Date.now())
  await until('a part of the download', () => progress.bytes > bytes / 10, { everyMs: 5 })

  const cutAt = Date.now()
  await lab.cut('udp', PAIR[1])
  const relayed = await waysOnce(lab, PAIR, ({ rung }) => rung === 'relay-tcp', 'relayed after the cut')
  const relayedAt = Date.now()
  for (const { from, path } of relayed)
    t.match(path.reason, /direct answered no echo for \d+ ms/, `why ${from} is relayed`)
  t.ok(progress.bytes < bytes, 'the download is still under way')
  t.comment(`relayed ${relayedAt - cutAt} ms after the cut, download ended ${(await ended) - cutAt} ms after it`)
  t.equal(progress.summary, `1 200 ${bytes}`, 'one connection, to the end')
  t.equal(progress.bytes, bytes)
  const blocked = await waysOnce(
    lab,
    PAIR,
    ({ reason }) => reason.includes('UDP is blocked'),
    'the reason is found out',
  )
  for (const { from, path } of blocked)
    t.match(
      path.reason,
      from === 'kelp' ? /UDP is blocked at this site/ : /UDP is blocked at kelp/,
      `what stands in the way of ${from}`,
    )

  const healedAt = Date.now()
  await lab.heal(PAIR[1])
  const healed = await directOnce(lab, PAIR)
  t.comment(`direct ${Date.now() - healedAt} ms after the heal`)
  t.strictSame(
    healed.map(({ path }) => path.reason),
    ['', ''],
    'direct again',
  )
  await until('the NAT of kelp is known again', async () => {
    const kelp = (await gatewaysOf(lab)).find(({ pool }) => pool === 'kelp')
    return kelp !== undefined && natName(kelp.nat) === 'restricted cone'
  })
  t.comment(`the NAT is known again ${Date.now() - healedAt} ms after the heal`)
})

type Kill = {
  readonly daemon: DaemonName
  readonly host: string
  /** The longest time without an answer, in ms. */
  readonly byAddress: number
  readonly byName: number
}
/** Time for calls after the fault, whatever came of those during it. */
const ANSWERS_MS = 2_000
const kills: readonly Kill[] = [
  { daemon: 'relay', host: 'cloud', byAddress: 0, byName: 0 },
  { daemon: 'agent', host: AGENT, byAddress: 0, byName: 2_000 },
  { daemon: 'agent', host: PEER, byAddress: 0, byName: 0 },
  { daemon: 'gateway', host: GATEWAY, byAddress: 1_000, byName: 1_000 },
  { daemon: 'gateway', host: PEER, byAddress: 1_000, byName: 1_000 },
]

t.test('kill -9 on a direct path, under calls that each open a connection', async (t) => {
  await directOnce(lab, PAIR)
  for (const { daemon, host, byAddress, byName } of kills) {
    const what = `${daemon} on ${host}`
    const streams = [BY_ADDRESS, BY_NAME].map((url) =>
      startCalls(lab, CLIENT, { url, family: 4, intervalMs: 20, timeoutMs: CALL_TIMEOUT_MS, successes: 0 }),
    )
    await sleep(500)
    await backAfter(lab, host, daemon, () => lab.kill(host, daemon))
    await settled(lab)
    // By name a call may have begun while nobody answered, and wait for the resolver's own timer.
    await sleep(ANSWERS_MS)
    const [address, name] = (await Promise.all(streams.map(({ stop }) => stop()))) as [readonly Call[], readonly Call[]]
    const text = [address, name].map(
      (calls) => `${failuresOf(calls).length} of ${calls.length} failed, ${outageMs(calls)} ms`,
    )
    t.comment(`${what}: by address ${text[0]}; by name ${text[1]}`)
    const answered = [address, name].map((calls) => calls.length - failuresOf(calls).length)
    t.ok(Math.min(...answered) > 3, `${what}: enough answers to tell: ${answered.join(' and ')}`)
    for (const [calls, ms, by] of [
      [address, byAddress, 'address'],
      [name, byName, 'name'],
    ] as const) {
      const errors = [...new Set(failuresOf(calls).map(({ error }) => error))].join(' ')
      if (ms === 0) t.equal(failuresOf(calls).length, 0, `${what}: no call by ${by} fails ${errors}`)
      else t.ok(outageMs(calls) <= ms * UNDER_LOAD, `${what}: calls by ${by} fail for ${outageMs(calls)} ms ${errors}`)
    }
  }
  t.ok(
    (await waysOf(lab)).every(({ path }) => path.rung === 'direct'),
    'all paths are direct',
  )
})

t.test('without the cloud', async (t) => {
  for (const cut of ['relay', 'wan'] as const) {
    await directOnce(lab, PAIR)
    await lab.cut(cut, PAIR[0])
    for (const daemon of ['agent', 'gateway'] as const) {
      const host = daemon === 'agent' ? AGENT : GATEWAY
      await lab.stop(host, daemon)
      await lab.startAgain(host, daemon)
    }
    for (const family of [4, 6] as const) {
      // One of two endpoints is on another node.
      const nodes = new Set<string>()
      for (let call = 0; call < 30 && nodes.size < 2; call++)
        nodes.add((await getOnce(lab, CLIENT, 'http://web-brine.shop/', family)).node)
      t.strictSame(
        [...nodes].toSorted(),
        ['brine1', 'brine2'],
        `cut ${cut}: names and routes within the pool, IPv${family}`,
      )
      if (cut === 'relay')
        t.match(
          (await getOnce(lab, CLIENT, BY_NAME, family)).node,
          /^kelp/,
          `cut ${cut}: to the other pool, IPv${family}`,
        )
    }
    const agent = (await lab.status()).daemons.find(
      ({ host, status }) => host === AGENT && status.kind === 'agent',
    )?.status
    t.match(agent, { metadata: { source: 'disk' } }, `cut ${cut}: status says what it works from`)
    await lab.heal(PAIR[0])
    await until(`the agent follows the cloud again after cut ${cut}`, async () =>
      (await lab.status()).daemons.some(
        ({ host, status }) => host === AGENT && status.kind === 'agent' && status.metadata.source === 'cloud',
      ),
    )
  }
})

t.test('kernel state that somebody removes is back', async (t) => {
  const tables = async () => (await lab.exec(GATEWAY, ['nft', 'list', 'tables'])).stdout
  const wanted = ['table ip fulmar', 'table ip6 fulmar', 'table inet fulmar-gateway']

  await t.test('nft flush ruleset', async (t) => {
    await directOnce(lab, PAIR)
    await lab.exec(GATEWAY, ['nft', 'flush', 'ruleset'])
    const flushedAt = Date.now()
    await until(
      'our nft tables',
      async () => {
        const there = (await tables()).split('\n')
        return wanted.every((table) => there.includes(table))
      },
      { everyMs: 10 },
    )
    const backMs = Date.now() - flushedAt
    t.comment(`nft tables back after ${backMs} ms`)
    t.ok(backMs <= 1_000 * UNDER_LOAD, `agent's and gateway's tables are back after ${backMs} ms`)
    t.equal((await getOnce(lab, 'brine1-client', BY_ADDRESS, 4, 2_000)).client.length > 0, true, 'calls work')
    t.match((await getOnce(lab, 'brine1-client', BY_NAME, 6, 5_000)).node, /^kelp/, 'names too')
  })

  const byKernel = (await gatewaysOf(lab)).every(({ wireguard }) => wireguard.implementation === 'kernel')
  const faults: readonly { readonly name: string; readonly fault: () => Promise<unknown>; readonly skip?: boolean }[] =
    [
      {
        name: 'the device of the direct path is deleted',
        fault: () => lab.exec(GATEWAY, ['ip', 'link', 'delete', 'fm-direct']),
      },
      {
        name: 'the device of the relayed path is deleted',
        fault: () => lab.exec(GATEWAY, ['ip', 'link', 'delete', 'fm-tcp']),
      },
      {
        name: 'wireguard-go is killed',
        fault: async () => t.not(killWireGuard(lab, GATEWAY), 0, 'there was one to kill'),
        skip: byKernel,
      },
    ]
  for (const { name, fault, skip = false } of faults)
    await t.test(name, { skip }, async (t) => {
      await directOnce(lab, PAIR)
      const calls = startCalls(lab, CLIENT, {
        url: BY_ADDRESS,
        family: 4,
        intervalMs: 50,
        timeoutMs: CALL_TIMEOUT_MS,
        successes: 0,
      })
      await until('calls run', async () => (await get(lab, CLIENT, [BY_ADDRESS], 4)).length > 0)
      const at = Date.now()
      await fault()
      const devices = async () => (await lab.exec(GATEWAY, ['ip', '-br', 'link'])).stdout
      const back = async () => /^fm-direct /m.test(await devices()) && /^fm-tcp /m.test(await devices()) && Date.now()
      const deviceMs = (await until('both devices are there', back, { everyMs: 20 })) - at
      await directOnce(lab, PAIR)
      const directMs = Date.now() - at
      await getOnce(lab, CLIENT, BY_ADDRESS, 4)
      // A call that hangs is counted when it ends.
      await sleep(1.5 * CALL_TIMEOUT_MS)
      const all = await calls.stop()
      t.comment(
        `${name}: devices after ${deviceMs} ms, direct after ${directMs} ms, calls failed for ${outageMs(all)} ms`,
      )
      t.ok(outageMs(all) < 10_000, `calls fail for ${outageMs(all)} ms only`)
      t.equal(failuresOf(all.slice(-1)).length, 0, 'the last call works')
    })
})

/** The processes of a node's wireguard-go end by SIGKILL. @returns how many. */
function killWireGuard({ id }: Lab, node: string): number {
  const pids = readFileSync(`${cgroupRoot()}/${cgroupOf(id)}/${node}/cgroup.procs`, 'utf8')
    .trim()
    .split('\n')
    .map(Number)
  const found = pids.filter((pid) => readFileSync(`/proc/${pid}/comm`, 'utf8').startsWith('wireguard-go'))
  for (const pid of found) process.kill(pid, 'SIGKILL')
  return found.length
}

/** Does something, and waits until that daemon answers anew. */
async function backAfter(lab: Lab, host: string, daemon: DaemonName, body: () => void): Promise<void> {
  const back = new Promise<void>((resolve) => {
    const end = lab.onEvent((event) => {
      if (event.kind !== 'ready' || event.host !== host || event.daemon !== daemon) return
      end()
      resolve()
    })
  })
  body()
  await back
}

/** Everybody answers, has a session with the relay, and a path that does not move for a second. */
async function settled(lab: Lab): Promise<void> {
  const quietMs = () => Date.now() - Math.max(...PAIR.flatMap((pool) => movesOf(lab, pool).map(({ at }) => at)))
  await until('the mesh is at rest', async () => {
    const gateways = await gatewaysOf(lab)
    const connected = gateways.length === 3 && gateways.every(({ relay }) => relay.state === 'connected')
    return connected && quietMs() > 1_000 && (await directOnce(lab, PAIR))
  })
}
