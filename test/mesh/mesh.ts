// What the tests of the whole mesh share: a lab that explains itself when a test fails, waiting for what is to come, and
// calls from inside pods.

import { readFileSync } from 'node:fs'
import { setTimeout as sleep } from 'node:timers/promises'
import type { GatewayStatus, PathStatus, RelayStatus } from '../../lib/status.ts'
import type { Call } from '../lab/caller.ts'
import { openLab, type Lab, type LabOptions } from '../lab/lab.ts'
import { renderLabStatus } from '../lab/status.ts'

/** What `openMesh` needs of a test. */
type Test = { readonly teardown: (body: () => Promise<void>) => unknown; readonly passing: () => boolean }

/** Times that are promised in seconds are held twice as long: machines that run tests run much else. */
export const UNDER_LOAD = 2
/** `npm run test:long`: more rounds, rows and calls than fit into the minutes of `npm test`. */
export const LONG = process.env['LONG'] === '1'
/** Why a test is left out where that is not what runs. */
export const UNLESS_LONG = !LONG && 'npm run test:long runs it'

/** For everything that has no promised time: long enough for a machine that is busy with other tests. */
export const PATIENCE_MS = 40_000

const LOG_LINES = 40

/** Paths are kept up without traffic, unless the options say otherwise. @param suffix tells labs of one process apart. */
export async function openMesh(t: Test, suffix: string, options: LabOptions): Promise<Lab> {
  const gatewayFlags = ['--warm', 'all']
  const lab = await openLab({ id: `e${process.pid % 100_000}${suffix}`, gatewayFlags, ...options })
  t.teardown(async () => {
    if (!t.passing()) process.stderr.write(await explain(lab).catch((error: Error) => `${error.message}\n`))
    await lab.close()
  })
  return lab
}

async function explain(lab: Lab): Promise<string> {
  const logs = lab.topology.pools.map(({ gateway }) => {
    const lines = readFileSync(lab.logOf(gateway, 'gateway'), 'utf8').trimEnd().split('\n')
    return `log of the gateway on ${gateway}:\n${lines.slice(-LOG_LINES).join('\n')}\n`
  })
  return [renderLabStatus(await lab.status(), Date.now()), ...logs].join('\n')
}

/** Looks until it finds something. @throws Error saying what was not found, and what was seen last. */
export async function until<T>(
  what: string,
  look: () => Promise<T | undefined | false> | T | undefined | false,
  { withinMs = PATIENCE_MS, everyMs = 100, seen = () => '' as unknown } = {},
): Promise<T> {
  for (const endsAt = Date.now() + withinMs; ;) {
    const found = await look()
    if (found !== undefined && found !== false) return found
    if (Date.now() > endsAt) throw new Error(`${what}: not within ${withinMs} ms ${JSON.stringify(seen())}`)
    await sleep(everyMs)
  }
}

/** One pool's path to another, as its gateway tells it. */
export type Way = { readonly from: string; readonly to: string; readonly path: PathStatus }

export const gatewaysOf = async (lab: Lab): Promise<readonly GatewayStatus[]> =>
  (await lab.status()).daemons.flatMap(({ status }) => (status.kind === 'gateway' ? [status] : []))

export const relayOf = async (lab: Lab): Promise<RelayStatus | undefined> =>
  (await lab.status()).daemons.flatMap(({ status }) => (status.kind === 'relay' ? [status] : []))[0]

export const waysOf = async (lab: Lab): Promise<readonly Way[]> =>
  (await gatewaysOf(lab)).flatMap(({ pool, paths }) => paths.map((path) => ({ from: pool, to: path.pool, path })))

/** Both ways between two pools, once they are as asked. */
export async function waysOnce(
  lab: Lab,
  [a, b]: readonly [string, string],
  isSo: (path: PathStatus) => boolean,
  what: string,
): Promise<readonly Way[]> {
  let last: readonly Way[] = []
  return until(
    `${a} ↔ ${b}: ${what}`,
    async () => {
      last = (await waysOf(lab)).filter(({ from, to }) => (from === a && to === b) || (from === b && to === a))
      return last.length === 2 && last.every(({ path }) => isSo(path)) && last
    },
    { seen: () => last.map(({ from, path: { rung, reason } }) => ({ from, rung, reason })) },
  )
}

export const directOnce = (lab: Lab, pair: readonly [string, string]): Promise<readonly Way[]> =>
  waysOnce(lab, pair, ({ rung }) => rung === 'direct', 'direct')

/** What a pod's server answers (test/lab/pod-server.ts). */
export type Answer = { readonly pod: string; readonly node: string; readonly client: string }

/** Calls one after the other from one host, each over a connection of its own. @returns the answers of those that were answered. */
export async function get(lab: Lab, host: string, urls: readonly string[], family: 4 | 6): Promise<readonly Answer[]> {
  const options = [
    `-${family}`,
    '--silent',
    '--connect-timeout',
    '5',
    '--max-time',
    '10',
    '--header',
    'Connection: close',
  ]
  const { stdout } = await lab.exec(host, ['curl', ...options, ...urls])
  const lines = stdout.split('\n').filter((line) => line !== '')
  return lines.map((line) => JSON.parse(line) as Answer)
}

export async function getOnce(lab: Lab, host: string, url: string, family: 4 | 6, withinMs?: number): Promise<Answer> {
  const look = async () => (await get(lab, host, [url], family))[0]
  return until(`${host} calls ${url} over IPv${family}`, look, withinMs === undefined ? {} : { withinMs })
}

/** The pod's address of a family. */
export function addressOf(lab: Lab, host: string, family: 4 | 6): string {
  const pod = lab.topology.pods.find((candidate) => candidate.host === host)
  return pod?.addresses.find((address) => address.includes(':') === (family === 6)) ?? `no IPv${family} of ${host}`
}

/** Sends a datagram and prints what comes back, repeating it as a UDP client would. */
const ECHO = `
const [family, name, port, text] = process.argv.slice(1)
const socket = require('dgram').createSocket('udp' + family)
const send = () => socket.send(text, port, name, () => {})
socket.on('message', (answer) => { console.log(String(answer)); process.exit(0) })
setInterval(send, 500)
setTimeout(() => process.exit(1), 10000)
send()`

export async function echo(lab: Lab, host: string, to: string, port: number, family: 4 | 6): Promise<unknown> {
  const { stdout } = await lab.exec(host, [process.execPath, '-e', ECHO, String(family), to, String(port), 'hello'])
  return stdout === '' ? undefined : JSON.parse(stdout)
}

export const failuresOf = (calls: readonly Call[]): readonly Call[] => calls.filter(({ status }) => status !== 200)

/** How long the longest time was in which every call failed, from the start of the first to the end of the last. */
export function outageMs(calls: readonly Call[]): number {
  let [longest, since] = [0, NaN]
  for (const { at, ms, status } of calls.toSorted((a, b) => a.at - b.at)) {
    if (status === 200) since = NaN
    else longest = Math.max(longest, at + ms - (Number.isNaN(since) ? (since = at) : since))
  }
  return Math.round(longest)
}
