// A kubelet of the lab on this machine's loopback, with one pod whose containers run on the machine itself.

import { spawn } from 'node:child_process'
import { connect, type AddressInfo } from 'node:net'
import { issueServer, validFor, type KeyPair } from '../../../lib/certificates.ts'
import { Container } from '../../lab/kubelet/container.ts'
import type { KubeletPod } from '../../lab/kubelet/pods.ts'
import { connected } from '../../lab/kubelet/netns-socket.ts'
import { startProcess } from '../../lab/kubelet/process.ts'
import { createKubelet } from '../../lab/kubelet/server.ts'

export type TestKubelet = { readonly port: number; readonly open: () => number; readonly pod: KubeletPod }
type Test = { teardown(fn: () => unknown): unknown }

/** @param directory for logs. @param names that the serving certificate is for. */
export async function serveKubelet(
  t: Test,
  options: {
    readonly node: string
    readonly authority: KeyPair
    readonly directory: string
    readonly containers: readonly {
      readonly name: string
      readonly command: readonly string[]
      readonly stdin?: boolean
    }[]
    readonly pod: string
    readonly namespace: string
    readonly names?: readonly string[]
    readonly webSockets?: boolean
  },
): Promise<TestKubelet> {
  const { node, authority, directory, pod: name, namespace, names = [node], webSockets = true } = options
  const life = new AbortController()
  const { PATH } = process.env
  const sandbox: KubeletPod['sandbox'] = {
    start: ({ command: [program = '', ...args], ...rest }) =>
      startProcess([program, args], { command: [], ...rest, env: { PATH, ...rest.env } }),
    connect: (port, signal) => connected(connect({ host: '127.0.0.1', port, allowHalfOpen: true }), signal),
  }
  const containers = options.containers.map(
    ({ name: container, command, stdin = false }) =>
      new Container(sandbox, { name: container, command, env: {}, stdin, tty: false }, `${directory}/${container}`),
  )
  const running = containers.map((container) => container.run(container.spec.command!, life.signal))
  const object = {
    apiVersion: 'v1',
    kind: 'Pod',
    metadata: { name, namespace },
    spec: { nodeName: node, containers: options.containers },
  }
  const pod: KubeletPod = { name, namespace, sandbox, object, containers }
  const server = createKubelet({
    node,
    pods: [pod],
    stats: () => ({
      node,
      usage: { cpuSeconds: process.uptime(), memoryBytes: 200 << 20, cores: 1 },
      pods: [{ pod, usage: { cpuSeconds: process.uptime() / 2, memoryBytes: 100 << 20, cores: 0.25 } }],
      at: Date.now(),
    }),
    serving: await issueServer(authority, names, validFor(Date.now(), 1)),
    clientCa: authority.certificatePem,
    webSockets,
  })
  let open = 0
  server.on('connection', (socket) => {
    open++
    socket.once('close', () => open--)
  })
  await new Promise<void>((resolve) => server.listen(0, '127.0.0.1', resolve))
  t.teardown(async () => {
    life.abort()
    server.close()
    server.closeAllConnections()
    await Promise.all(running)
  })
  return { port: (server.address() as AddressInfo).port, open: () => open, pod }
}

/** The pod's server, as in the lab. @returns its port. */
export async function servePod(t: Test, program: string, port: number): Promise<number> {
  const self = { pod: 'ops', namespace: 'ops', node: 'edge', tcp: [port], udp: [] }
  const child = spawn(process.execPath, [program, JSON.stringify(self)], {
    stdio: ['ignore', 'ignore', 'inherit', 'pipe'],
  })
  t.teardown(() => child.kill('SIGKILL'))
  await new Promise((resolve) => child.stdio[3]!.once('data', resolve))
  return port
}
