// What befalls a node's agent, its rules and its links, and who comes and goes beside it, under 500 calls a second that each
// open a connection: half of them by BPF, half by nft, over both families; and calls by name beside them, with the cluster
// DNS taken over and not. LONG=1 for all of them, again and again.

import { execFileSync, spawn, type ChildProcess } from 'node:child_process'
import { once } from 'node:events'
import { rmSync } from 'node:fs'
import { join } from 'node:path'
import { createInterface } from 'node:readline'
import { setTimeout as sleep } from 'node:timers/promises'
import { fileURLToPath } from 'node:url'
import t, { type Test } from 'tap'
import { removePins } from '../../lib/bpf/pins.ts'
import { fetchStatus } from '../../lib/net/status-client.ts'
import { BPF_DIR } from '../../lib/owned.ts'
import { addGroup, enterCage } from '../agent/cage.ts'
import { serveApi, writeIdentity } from '../agent/joined.ts'
import { addPod } from '../agent/namespace.ts'
import { startServer } from '../agent/peer.ts'
import { isRoot, until } from '../lib/netns.ts'
import type { Came, Calling } from './fault-caller.ts'
import { KUBE_PROXIES, type Forward } from './kube-proxy.ts'

t.setTimeout(300_000)

const PER_SECOND = 500
const LONG = process.env['LONG'] === '1'
const ROUNDS = LONG ? 3 : 1
/** Times that are promised in seconds are held twice as long: machines that run tests run much else. */
const UNDER_LOAD = 2
const BY_NAME_MS = 2_000
/** A hung agent's takeover of the cluster DNS lapses after that; a dead one's ends with it. */
const LAPSE_MS = 3_000
const FLUSH_MS = 1_000
/** For everything that has no promised time. */
const PATIENCE_MS = 60_000
/** A kubelet's restart of what died. */
const RESTART_MS = 200
const AWAY_MS = LAPSE_MS + 1_000
/** Calls go on for so long after a fault is over. */
const AFTER_MS = 1_000
const NAME = 'web.shop.svc.cluster.local'

const cage = isRoot ? enterCage('fmf-', import.meta.url) : undefined
if (!isRoot) t.test('needs root', { skip: true }, () => {})
if (cage !== undefined) {
  execFileSync('sysctl', ['-qw', 'net.ipv4.ip_forward=1', 'net.ipv6.conf.all.forwarding=1'])
  const test = `fmf-${process.pid}`
  const [a, b, c] = ['a', 'b', 'c'].map((pod, i) =>
    addPod(test, pod, [
      [`10.244.1.${i + 2}`, '10.244.1.1'],
      [`fd00:244:1::${i + 2}`, 'fd00:244:1::1'],
    ]),
  ) as [string, string, string]
  const clusterDns = spawn(
    'ip',
    [
      'netns',
      'exec',
      a,
      process.execPath,
      fileURLToPath(import.meta.resolve('./fault-dns.ts')),
      NAME,
      '10.96.0.1',
      'fd00:96::1',
    ],
    { stdio: ['pipe', 'pipe', 'inherit'] },
  )
  await once(clusterDns.stdout!, 'data')
  const children: ChildProcess[] = [await startServer(a, 'a', 8080), await startServer(b, 'b', 8080), clusterDns]

  const metadata = (namespace: string, name: string, labels = {}) => ({
    namespace,
    name,
    uid: name,
    resourceVersion: '1',
    labels,
  })
  const service = (namespace: string, name: string, last: string, port: object) => ({
    metadata: metadata(namespace, name),
    spec: { clusterIP: `10.96.0.${last}`, clusterIPs: [`10.96.0.${last}`, `fd00:96::${last}`], ports: [port] },
  })
  const slices = (namespace: string, of: string, port: object) =>
    (['10.244.1.2', 'fd00:244:1::2'] as const).map((address) => ({
      metadata: metadata(namespace, `${of}-${address.length}`, { 'kubernetes.io/service-name': of }),
      addressType: address.includes(':') ? 'IPv6' : 'IPv4',
      endpoints: [{ addresses: [address], nodeName: 'h1' }],
      ports: [port],
    }))
  const [http, dns] = [
    { name: 'http', protocol: 'TCP' },
    { name: 'dns', protocol: 'UDP' },
  ]
  const api = await serveApi({
    '/api/v1/nodes': [
      {
        metadata: { name: 'h1', uid: 'h1', resourceVersion: '1' },
        spec: { podCIDRs: ['10.244.1.0/24', 'fd00:244:1::/64'] },
      },
    ],
    '/api/v1/services': [
      service('kube-system', 'kube-dns', '10', { ...dns, port: 53 }),
      service('shop', 'web', '1', { ...http, port: 80 }),
    ],
    '/apis/discovery.k8s.io/v1/endpointslices': [
      ...slices('kube-system', 'kube-dns', { ...dns, port: 53 }),
      ...slices('shop', 'web', { ...http, port: 8080 }),
    ],
  })

  // === the agent ===

  const state = t.testdir()
  const runDir = join(state, 'run')
  writeIdentity(state, 'h1')
  const program = fileURLToPath(new URL('../../cli/main.ts', import.meta.url))
  let agent: ChildProcess
  let flags: readonly string[] = []
  const start = (): void => {
    const common = ['--state-dir', state, '--run-dir', runDir, '--cgroup', `${cage.group}/node`]
    const log = ['--log-level', process.env['LOG'] ?? 'silent']
    agent = spawn(process.execPath, [program, 'agent', ...common, ...log, ...flags], { stdio: 'inherit' })
  }
  const stop = async (signal: NodeJS.Signals): Promise<void> => {
    const ended = once(agent, 'exit')
    agent.kill(signal)
    await ended
  }
  const serving = () =>
    until('the agent serves by BPF', PATIENCE_MS, async () => {
      const found = await fetchStatus(join(runDir, 'agent.sock')).catch(() => undefined)
      return found?.kind === 'agent' && found.services.count === 2 && found.services.path === 'bpf'
    })
  const restart = async (
    signal: NodeJS.Signals,
    between: () => void = () => undefined,
    awayMs = RESTART_MS,
  ): Promise<void> => {
    await stop(signal)
    between()
    await sleep(awayMs)
    start()
    await serving()
  }

  // === calls ===

  const others = addGroup(cage, 'other')
  class Caller {
    readonly #child: ChildProcess
    readonly #lines: AsyncIterator<string>
    constructor(group: string) {
      const calling: Calling = {
        perSecond: PER_SECOND / 2,
        addresses: ['10.96.0.1', 'fd00:96::1'],
        port: 80,
        byName: {
          name: NAME,
          nameservers: ['10.96.0.10', 'fd00:96::10'],
          everyMs: 100,
          withinMs: 2 * LAPSE_MS * UNDER_LOAD,
        },
      }
      const file = fileURLToPath(import.meta.resolve('./fault-caller.ts'))
      const command = ['ip', 'netns', 'exec', c, process.execPath, file, JSON.stringify(calling)]
      const enter = ['-c', 'echo 0 > "$1/cgroup.procs" && shift && exec "$@"', 'sh', group]
      this.#child = spawn('sh', [...enter, ...command], { stdio: ['pipe', 'pipe', 'inherit'] })
      this.#lines = createInterface({ input: this.#child.stdout! })[Symbol.asyncIterator]()
    }
    async came(): Promise<Came> {
      this.#child.stdin!.write('\n')
      return JSON.parse((await this.#lines.next()).value as string) as Came
    }
    end(): void {
      this.#child.kill()
    }
  }

  t.teardown(async () => {
    if (agent.exitCode === null) await stop('SIGKILL')
    api.close()
    api.closeAllConnections()
    for (const child of children) child.kill()
    rmSync(runDir, { recursive: true, force: true })
  })

  const [kubeProxy] = KUBE_PROXIES
  const forwards = ([4, 6] as const).map((family): Forward => {
    const [clusterIp, address, nodeAddress] =
      family === 4
        ? (['10.96.0.1', '10.244.1.3', '192.0.2.1'] as const)
        : (['fd00:96::1', 'fd00:244:1::3', '2001:db8::1'] as const)
    return {
      family,
      protocol: 'tcp',
      clusterIp,
      port: 80,
      nodeAddress,
      nodePort: 30_080,
      endpoint: { address, port: 8080 },
    }
  })
  const nft = (command: string) => execFileSync('nft', command.split(' '), { encoding: 'utf8' })
  const tablesBack = () =>
    until(
      'both tables are back',
      PATIENCE_MS,
      async () =>
        nft('list tables')
          .split('\n')
          .filter((line) => / ip6? fulmar$/.test(line)).length === 2,
    )

  type Fault = {
    readonly name: string
    readonly body: () => Promise<unknown>
    /** For how long calls by nft may fail, ms; those by BPF never do. */
    readonly byNft?: number
    /** After which calls by name have succeeded, ms. */
    readonly byName?: number
    /** Also while the cluster DNS is not taken over. */
    readonly always?: true
    /** Only where LONG=1. */
    readonly long?: true
  }
  const faults: readonly Fault[] = [
    { name: 'nothing', body: () => sleep(AFTER_MS), long: true },
    { name: 'the agent is killed', body: () => restart('SIGKILL'), always: true },
    { name: 'the agent is upgraded', body: () => restart('SIGTERM'), always: true },
    {
      name: 'the agent is killed and stays away',
      body: () => restart('SIGKILL', () => undefined, AWAY_MS),
      // Even under load before anything could have lapsed.
      byName: BY_NAME_MS / UNDER_LOAD,
    },
    {
      name: 'the agent is upgraded to one with another layout of rules',
      long: true,
      body: () =>
        restart('SIGTERM', () => {
          for (const family of ['ip', 'ip6']) {
            const [, marker] = /chain (layout-\S+)/.exec(nft(`-t list table ${family} fulmar`))!
            nft(`rename chain ${family} fulmar ${marker} layout-000000000000-1`)
          }
        }),
    },
    {
      name: 'all nft rules are flushed',
      body: async () => {
        nft('flush ruleset')
        await tablesBack()
      },
      byNft: FLUSH_MS,
      always: true,
    },
    {
      name: 'our tables are deleted',
      long: true,
      body: async () => {
        nft('delete table ip fulmar')
        nft('delete table ip6 fulmar')
        await tablesBack()
      },
      byNft: FLUSH_MS,
    },
    {
      name: 'our BPF links are detached and unpinned',
      body: async () => {
        removePins(BPF_DIR)
        await sleep(500)
        await serving()
      },
    },
    {
      name: 'kube-proxy starts and stops, three times',
      body: async () => {
        for (let i = 0; i < 3; i++) {
          kubeProxy!.start(forwards)
          await sleep(200)
          kubeProxy!.stop()
          await sleep(200)
        }
      },
    },
    {
      name: 'the agent is killed beside kube-proxy, which stops before it is back',
      long: true,
      body: async () => {
        kubeProxy!.start(forwards)
        await restart('SIGKILL', () => kubeProxy!.stop())
      },
    },
  ]

  const outageMs = (failures: Came['failures']): number =>
    failures.length === 0 ? 0 : Math.round(Math.max(...failures.map(({ atMs }) => atMs)) - failures[0]!.atMs)
  const errors = (failures: Came['failures']) => [...new Set(failures.map(({ error }) => error))].join(' ')

  const run = async (
    t: Test,
    { name, body, byNft = 0, byName = BY_NAME_MS }: Fault,
    callers: readonly Caller[],
  ): Promise<void> => {
    await Promise.all(callers.map((caller) => caller.came()))
    await sleep(AFTER_MS / 2)
    await body()
    await sleep(AFTER_MS)
    const came = await Promise.all(callers.map((caller) => caller.came()))
    const sum = (of: (came: Came) => number) => came.reduce((sum, each) => sum + of(each), 0)
    const rate = sum(({ perSecond }) => perSecond)
    t.ok(rate > 0.9 * PER_SECOND, `${name}: ${rate} calls/s`)
    t.comment(`${name}: ${rate} calls/s, ${sum(({ leastPerSecond }) => leastPerSecond)} in the slowest half second`)
    for (const [i, { calls, failures, slowestMs, names, nameFailures, slowestNameMs, by }] of came.entries()) {
      const way = i === 0 ? 'BPF' : 'nft'
      t.comment(
        `${name}: by ${way} ${failures.length} of ${calls} failed, for ${outageMs(failures)} ms ${errors(failures)}, slowest ${slowestMs} ms; ` +
          `by name ${nameFailures.length} of ${names} failed ${errors(nameFailures)}, slowest ${slowestNameMs} ms`,
      )
      const allowedMs = i === 0 ? 0 : byNft * UNDER_LOAD
      if (allowedMs === 0) t.strictSame(failures, [], `${name}: no call by ${way} fails`)
      else t.ok(outageMs(failures) <= allowedMs, `${name}: calls by ${way} fail for ${outageMs(failures)} ms`)
      t.strictSame(by, ['a'], `${name}: ours answers by ${way}`)
      t.equal(nameFailures.length, 0, `${name}: calls by name succeed when tried again`)
      t.ok(slowestNameMs <= byName * UNDER_LOAD, `${name}: they take ${slowestNameMs} ms at most`)
    }
  }

  for (const takeover of [true, false])
    await t.test(takeover ? 'the cluster DNS is taken over' : 'the cluster DNS answers itself', async (t) => {
      flags = takeover ? [] : ['--cluster-dns-service', '']
      start()
      await serving()
      const callers = [new Caller(`${cage.group}/node`), new Caller(others)]
      t.teardown(() => callers.forEach((caller) => caller.end()))
      for (let round = 0; round < ROUNDS; round++)
        for (const fault of faults)
          if ((takeover || fault.always) && (LONG || !fault.long)) await run(t, fault, callers)
      await stop('SIGTERM')
    })
}
