// The agent as a process: what serves TCP calls, by its flags and by what the machine has.

import { spawn, type ChildProcess } from 'node:child_process'
import { existsSync } from 'node:fs'
import { createServer } from 'node:net'
import { join } from 'node:path'
import { setTimeout as sleep } from 'node:timers/promises'
import { fileURLToPath } from 'node:url'
import t from 'tap'
import { fetchStatus } from '../../lib/net/status-client.ts'
import type { AgentStatus } from '../../lib/status.ts'
import { isRoot } from '../lib/netns.ts'
import { enterCage } from './cage.ts'
import { serveApi, writeIdentity } from './joined.ts'
import { ip } from './namespace.ts'
import { call } from './peer.ts'

const cage = isRoot ? enterCage('fma-', import.meta.url) : undefined
if (!isRoot) t.test('needs root', { skip: true }, () => {})
if (cage !== undefined) {
  // An endpoint on the node itself, and some route to ClusterIPs before nft can tell a better one.
  ip('link', 'add', 'eth0', 'type', 'veth', 'peer', 'name', 'eth1')
  for (const link of ['eth0', 'eth1']) ip('link', 'set', link, 'up')
  ip('addr', 'add', '10.244.1.1/24', 'dev', 'eth0')
  ip('route', 'add', 'default', 'dev', 'eth0')
  const server = createServer((socket) => {
    socket.on('error', () => undefined)
    socket.end('here\n')
  })
  await new Promise<void>((resolve) => server.listen(8080, '10.244.1.1', resolve))

  const metadata = { namespace: 'shop', uid: 'web', resourceVersion: '1' }
  const port = { name: 'http', protocol: 'TCP' }
  const lists: Record<string, object[]> = {
    '/api/v1/nodes': [
      { metadata: { name: 'h1', uid: 'h1', resourceVersion: '1' }, spec: { podCIDRs: ['10.244.1.0/24'] } },
    ],
    '/api/v1/services': [
      {
        metadata: { ...metadata, name: 'web' },
        spec: { clusterIP: '10.96.0.1', clusterIPs: ['10.96.0.1'], ports: [{ ...port, port: 80 }] },
      },
    ],
    '/apis/discovery.k8s.io/v1/endpointslices': [
      {
        metadata: { ...metadata, name: 'web-1', labels: { 'kubernetes.io/service-name': 'web' } },
        addressType: 'IPv4',
        endpoints: [{ addresses: ['10.244.1.1'], nodeName: 'h1' }],
        ports: [{ ...port, port: 8080 }],
      },
    ],
  }
  const api = await serveApi(lists)

  const state = t.testdir()
  const runDir = join(state, 'run')
  writeIdentity(state, 'h1')

  const program = fileURLToPath(new URL('../../cli/main.ts', import.meta.url))
  const pins = '/sys/fs/bpf/fulmar'
  let agent: ChildProcess | undefined
  const kill = (): Promise<unknown> => new Promise((resolve) => agent!.once('exit', resolve) && agent!.kill('SIGKILL'))
  /** @returns its status once it has decided. */
  const start = async (...flags: readonly string[]): Promise<AgentStatus> => {
    const common = ['--state-dir', state, '--run-dir', runDir, '--log-level', process.env['LOG'] ?? 'silent']
    agent = spawn(process.execPath, [program, 'agent', ...common, ...flags], { stdio: 'inherit' })
    for (;;) {
      const found = await fetchStatus(join(runDir, 'agent.sock')).catch(() => undefined)
      if (found?.kind === 'agent' && found.services.count === 1 && found.services.pathReason !== 'it has not begun yet')
        return found
      await sleep(20)
    }
  }
  t.teardown(async () => {
    if (agent?.exitCode === null) await kill()
    server.close()
    api.close()
    api.closeAllConnections()
  })

  /** There are no certificates here, which is another problem. */
  const about = (problems: readonly string[]) => problems.filter((problem) => problem.includes('BPF'))

  t.test('BPF, where it works', async (t) => {
    const { services, problems } = await start('--cgroup', cage.group)
    t.strictSame(services, { count: 1, endpoints: 1, path: 'bpf' })
    t.strictSame(about(problems), [])
    t.equal(await call('tcp', '10.96.0.1', 80), 'here')
    await kill()
    t.equal(await call('tcp', '10.96.0.1', 80), 'here', 'killed')
    t.ok(existsSync(`${pins}/connect4`))
  })

  t.test('nft, where it is told so', async (t) => {
    const { services, problems } = await start('--service-path', 'nft', '--cgroup', cage.group)
    t.strictSame(services, { count: 1, endpoints: 1, path: 'nft', pathReason: 'it is told to be nft' })
    t.strictSame(about(problems), [])
    t.notOk(existsSync(pins))
    t.equal(await call('tcp', '10.96.0.1', 80), 'here')
    await kill()
  })

  t.test('nft, where BPF cannot be: a reason, and a problem only if BPF is wanted', async (t) => {
    // Which of two depends on who may look at the first process.
    const reason = /the machine’s own network.*: name the group of its processes$/
    const first = await start()
    t.match(first.services, { path: 'nft', pathReason: reason })
    t.strictSame(about(first.problems), [])
    await kill()
    const second = await start('--service-path', 'bpf')
    t.match(about(second.problems), [reason])
    t.match(about(second.problems), [/^nft serves the services and not BPF, as is wanted: /])
    t.equal(await call('tcp', '10.96.0.1', 80), 'here')
  })
}
