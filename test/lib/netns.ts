// Hosts for tests: each a network namespace with a mount namespace (wireguard-go keeps its control sockets in one folder for
// all devices of a name), held by a shell that ends when the test does, however it ends, and takes the devices with it.

import { spawn, type ChildProcess } from 'node:child_process'
import { once } from 'node:events'
import { createInterface } from 'node:readline'
import { run } from '../../lib/net/exec.ts'

export const isRoot = process.getuid?.() === 0

export type Host = {
  readonly pid: number
  /** Runs a command line there, to its end. @returns its stdout. */
  sh(command: string): Promise<string>
  /** Starts a script that calls `serve`; its exports are called by name. */
  start(script: string): Promise<Remote>
  close(): Promise<void>
}

export type Remote = {
  // oxlint-disable-next-line no-explicit-any
  call(method: string, ...args: readonly unknown[]): Promise<any>
  kill(): Promise<void>
}

const HOLD = `
mkdir -p /var/run/wireguard && mount -t tmpfs tmpfs /var/run/wireguard && ip link set lo up && echo ready
cat
for device in fm-leave fm-direct fm-udp fm-tcp; do ip link del $device; done 2>/dev/null
`

export async function createHost(): Promise<Host> {
  const holder = spawn('unshare', ['--net', '--mount', 'sh', '-c', HOLD], { stdio: ['pipe', 'pipe', 'inherit'] })
  await once(createInterface(holder.stdout), 'line')
  const pid = holder.pid!
  const enter = ['--target', String(pid), '--net', '--mount']
  const remotes: Remote[] = []
  return {
    pid,
    sh: (command) => run('nsenter', [...enter, 'sh', '-c', command]),
    async start(script) {
      const stdio = ['ignore', 2, 2, 'ipc'] as const
      const remote = await remoteOf(spawn('nsenter', [...enter, process.execPath, script], { stdio: [...stdio] }))
      remotes.push(remote)
      return remote
    },
    async close() {
      await Promise.all(remotes.map((remote) => remote.kill()))
      const ended = once(holder, 'exit')
      holder.stdin.end()
      await ended
    },
  }
}

let links = 0

/** A cable between two hosts, named `name` on both, with these addresses. */
export async function connect(name: string, a: [Host, ...string[]], b: [Host, ...string[]]): Promise<void> {
  const [left, right] = [`fmk-${process.pid % 100_000}-${++links}`, `fmk-${process.pid % 100_000}-${++links}`]
  await run('ip', ['link', 'add', left, 'type', 'veth', 'peer', 'name', right])
  for (const [link, [host, ...addresses]] of [
    [left, a],
    [right, b],
  ] as const) {
    await run('ip', ['link', 'set', link, 'netns', String(host.pid)])
    const add = addresses.map((address) => `ip addr add ${address} dev ${name}${address.includes(':') ? ' nodad' : ''}`)
    await host.sh([`ip link set ${link} name ${name}`, ...add, `ip link set ${name} up`].join(' && '))
  }
}

type Reply = { readonly id: number; readonly result?: unknown; readonly error?: string }

/** @param child a script that calls `serve`, started with an IPC channel. */
export async function remoteOf(child: ChildProcess): Promise<Remote> {
  const waiting = new Map<number, { resolve: (value: unknown) => void; reject: (error: Error) => void }>()
  let calls = 0
  const exited = once(child, 'exit')
  const ready = once(child, 'message')
  await Promise.race([ready, exited.then(() => Promise.reject(new Error('the script ended before it served')))])
  child.on('message', (reply: Reply) => {
    const caller = waiting.get(reply.id)
    waiting.delete(reply.id)
    if (reply.error === undefined) caller?.resolve(reply.result)
    else caller?.reject(new Error(reply.error))
  })
  void exited.then(() => waiting.forEach(({ reject }) => reject(new Error('the script ended'))))
  return {
    call: (method, ...args) =>
      new Promise((resolve, reject) => {
        const id = ++calls
        waiting.set(id, { resolve, reject })
        child.send({ id, method, args })
      }),
    async kill() {
      child.kill('SIGKILL')
      await exited
    },
  }
}

/** In a script that `start` runs: answers calls by these functions until the test is gone. */
// oxlint-disable-next-line no-explicit-any
export function serve(methods: Readonly<Record<string, (...args: any[]) => unknown>>): void {
  const answer = async (id: number, method: string, args: unknown[]): Promise<void> => {
    try {
      process.send!({ id, result: await methods[method]!(...args) })
    } catch (error) {
      process.send!({ id, error: (error as Error).message })
    }
  }
  process.on('message', ({ id, method, args }: { id: number; method: string; args: unknown[] }) => {
    void answer(id, method, args)
  })
  process.on('disconnect', () => process.exit())
  process.send!({})
}

/** Resolves when the condition holds. @throws Error after `ms`. @returns the milliseconds that it took. */
export async function until(what: string, ms: number, condition: () => Promise<boolean>): Promise<number> {
  const start = performance.now()
  while (!(await condition())) {
    if (performance.now() - start > ms) throw new Error(`${what}: not within ${ms} ms`)
    await new Promise((resolve) => setTimeout(resolve, 10))
  }
  return performance.now() - start
}

/** Pings at an interval until stopped. @returns how many were sent and how many answers came. */
export function ping(
  host: Host,
  address: string,
  source: string,
  intervalSeconds: number,
): () => Promise<{ sent: number; received: number }> {
  const words = ['-i', String(intervalSeconds), '-I', source, '-W', '1', address]
  const child = spawn('nsenter', ['--target', String(host.pid), '--net', 'ping', ...words], {
    stdio: ['ignore', 'pipe', 'inherit'],
  })
  let output = ''
  child.stdout.on('data', (chunk) => (output += chunk))
  return async () => {
    const ended = once(child, 'close')
    child.kill('SIGINT')
    await ended
    // The last one sent may be under way still: what counts is what is missing before the last that came back.
    const answered = new Set([...output.matchAll(/icmp_seq=(\d+) ttl/g)].map(([, number]) => Number(number)))
    if (answered.size === 0) throw new Error(`ping ${address}: ${output}`)
    return { sent: Math.max(...answered), received: answered.size }
  }
}
