// The agent as a process: what serves TCP calls, by its flags and by what the machine has.

import { spawn, spawnSync, type ChildProcess } from 'node:child_process'
import { closeSync, existsSync } from 'node:fs'
import { createServer } from 'node:net'
import { join } from 'node:path'
import { setTimeout as sleep } from 'node:timers/promises'
import { fileURLToPath } from 'node:url'
import t from 'tap'
import { exit, mov } from '../../lib/bpf/assembler.ts'
import { createLink, detachLink, loadProgram } from '../../lib/bpf/program.ts'
import { fetchStatus } from '../../lib/net/status-client.ts'
import type { AgentStatus } from '../../lib/status.ts'
import { isRoot, until } from '../lib/netns.ts'
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
  const inNft = () => {
    const listed = spawnSync('nft', ['list', 'map', 'ip', 'fulmar', 'services'], { encoding: 'utf8' })
    return listed.stdout.includes('10.96.0.1')
  }
  /** @returns its status once it has decided, and nft has what it is to have. */
  const start = async (...flags: readonly string[]): Promise<AgentStatus> => {
    const common = ['--state-dir', state, '--run-dir', runDir, '--log-level', process.env['LOG'] ?? 'silent']
    agent = spawn(process.execPath, [program, 'agent', ...common, ...flags], { stdio: 'inherit' })
    for (;;) {
      const found = await fetchStatus(join(runDir, 'agent.sock')).catch(() => undefined)
      const { count, path, pathReason } = found?.kind === 'agent' ? found.services : {}
      if (found?.kind === 'agent' && count === 1 && pathReason !== 'it has not begun yet')
        if (inNft() === (path !== 'none')) return found
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

  t.test('what Cilium serves is left to it, unless told otherwise', async (t) => {
    const status = async (): Promise<AgentStatus> => {
      const found = await fetchStatus(join(runDir, 'agent.sock'))
      if (found.kind !== 'agent') throw new Error(`a ${found.kind} answers`)
      return found
    }
    const pathBecomes = (path: AgentStatus['services']['path']) =>
      until(`the service path is ${path}`, 30_000, async () => (await status()).services.path === path)
    const none = await start('--cgroup', cage.group, '--service-path', 'none')
    t.match(none.services, { path: 'none', pathReason: 'it is told to be none' })
    t.notOk(existsSync(pins), 'told to serve nothing')
    await kill()

    t.match((await start('--cgroup', cage.group)).services, { path: 'bpf' })

    ip('link', 'add', 'cilium_host', 'type', 'veth', 'peer', 'name', 'cilium_net')
    const program = loadProgram('cil_sock4_connect', 'connect4', [mov('r0', 1), exit()], { maps: {}, constants: {} })
    const link = createLink(program, cage.group, 'connect4')
    await pathBecomes('none')
    const reason = 'Cilium replaces kube-proxy on this node (it runs cil_sock4_conne)'
    t.match((await status()).services, { pathReason: reason, beside: ['Cilium'] })
    t.notOk(existsSync(pins), 'BPF is detached')
    await until('nft has no services', 2_000, async () => !inNft())

    await kill()
    t.match((await start('--cgroup', cage.group)).services, { path: 'none' }, 'from the start')
    t.notOk(inNft(), 'and nothing comes back')
    await kill()
    t.match((await start('--cgroup', cage.group, '--service-path', 'bpf')).services, {
      path: 'bpf',
      beside: ['Cilium'],
    })
    t.equal(await call('tcp', '10.96.0.1', 80), 'here', 'told otherwise')
    await kill()
    t.match((await start('--cgroup', cage.group)).services, { path: 'none' })
    detachLink(link)
    for (const fd of [link, program]) closeSync(fd)
    await pathBecomes('bpf')
    t.ok(inNft())
    t.equal(await call('tcp', '10.96.0.1', 80), 'here', 'Cilium is gone')
    ip('link', 'del', 'cilium_host')
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
