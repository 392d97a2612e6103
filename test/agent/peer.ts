// A server and a client for tests in namespaces. `serve NAME PORT` answers TCP and UDP in both families with its name and
// the caller's address, and repeats what comes after; `call tcp|udp ADDRESS PORT COUNT` prints one line per answer, each
// over a socket of its own; `ask ADDRESS NAME TYPE COUNT` asks DNS every 50 ms over one and the same socket and prints the
// milliseconds since the start and the answer of each that was answered.

import { createSocket } from 'node:dgram'
import { connect, createServer, isIPv6 } from 'node:net'
import { networkInterfaces } from 'node:os'
import { spawn, type ChildProcess } from 'node:child_process'
import { createInterface } from 'node:readline'
import { setTimeout as sleep } from 'node:timers/promises'
import { fileURLToPath } from 'node:url'
import packet from 'dns-packet'

const TIMEOUT_MS = 2_000
const plain = (address: string | undefined) => address?.replace(/^::ffff:/, '') ?? ''

async function serve(name: string, port: number): Promise<void> {
  const tcp = createServer((socket) => {
    socket.on('error', () => undefined)
    socket.write(`${name} ${plain(socket.remoteAddress)}\n`)
    socket.pipe(socket)
  })
  // One socket per address: a wildcard socket would answer from whatever address the route prefers.
  const own = Object.values(networkInterfaces()).flatMap((addresses) => addresses?.map(({ address }) => address) ?? [])
  for (const address of new Set(own)) {
    if (address.startsWith('fe80:')) continue
    const udp = createSocket(isIPv6(address) ? 'udp6' : 'udp4')
    udp.on('message', (_, from) => udp.send(`${name} ${from.address}`, from.port, from.address))
    await new Promise<void>((resolve) => udp.bind(port, address, resolve))
  }
  await new Promise<void>((resolve) => tcp.listen(port, '::', resolve))
  process.stdout.write('listening\n')
}

/** @returns what the server said, or the error's code. */
export function call(protocol: 'tcp' | 'udp', address: string, port: number, timeoutMs = TIMEOUT_MS): Promise<string> {
  return new Promise((resolve) => {
    const timer = setTimeout(() => finish('timeout'), timeoutMs)
    const finish = (result: string): void => {
      clearTimeout(timer)
      end()
      resolve(result.trim())
    }
    let end: () => void
    if (protocol === 'tcp') {
      const socket = connect(port, address)
      end = () => socket.destroy()
      socket.on('data', (data) => finish(data.toString()))
      socket.on('error', (error: NodeJS.ErrnoException) => finish(error.code ?? error.message))
      return
    }
    const socket = createSocket(isIPv6(address) ? 'udp6' : 'udp4')
    end = () => socket.close()
    socket.on('message', (data) => finish(data.toString()))
    socket.on('error', (error: NodeJS.ErrnoException) => finish(error.code ?? error.message))
    socket.connect(port, address, () =>
      socket.send('?', (error) => error && finish((error as NodeJS.ErrnoException).code ?? '')),
    )
  })
}

async function ask(address: string, name: string, type: string, count: number): Promise<void> {
  const startedAt = performance.now()
  const socket = createSocket(isIPv6(address) ? 'udp6' : 'udp4')
  socket.on('error', () => undefined)
  socket.on('message', (bytes) => {
    console.log(`${Math.round(performance.now() - startedAt)} ${answerOf(bytes)}`)
  })
  await new Promise<void>((resolve) => socket.connect(53, address, resolve))
  for (let id = 1; id <= count; id++) {
    socket.send(packet.encode({ type: 'query', id, flags: 0x100, questions: [{ name, type }] }), () => undefined)
    await sleep(50)
  }
  await sleep(200)
  socket.close()
}

/** The first address, else the response code; or that it is no DNS. */
function answerOf(bytes: Buffer): string {
  try {
    const { answers, rcode } = packet.decode(bytes) as unknown as { answers: { data: string }[]; rcode: string }
    return answers[0]?.data ?? rcode
  } catch {
    return 'undecodable'
  }
}

type Answered = { readonly atMs: number; readonly answer: string }

/** Asks from a namespace, `count` times or until nobody listens any more; the times and answers. */
export async function* askEach(
  namespace: string,
  address: string,
  name: string,
  type: string,
  count: number,
): AsyncGenerator<Answered> {
  const child = spawnBy(inNamespace(namespace), ['ask', address, name, type, `${count}`])
  try {
    for await (const line of createInterface({ input: child.stdout! })) {
      const [atMs, answer] = line.split(' ')
      yield { atMs: Number(atMs), answer: answer! }
    }
  } finally {
    child.kill()
  }
}
export async function askFrom(...asked: Parameters<typeof askEach>): Promise<readonly Answered[]> {
  const found: Answered[] = []
  for await (const each of askEach(...asked)) found.push(each)
  return found
}

/** Starts a server in a namespace, or in this one; resolves once it listens. */
export async function startServer(namespace: string | undefined, name: string, port: number): Promise<ChildProcess> {
  const child = spawnBy(namespace === undefined ? [] : inNamespace(namespace), ['serve', name, `${port}`])
  for await (const line of createInterface({ input: child.stdout! })) if (line === 'listening') break
  return child
}

/** Calls from a namespace, `count` times. */
export const callFrom = (namespace: string, protocol: 'tcp' | 'udp', address: string, port: number, count = 1) =>
  callBy(inNamespace(namespace), protocol, address, port, count)

/** Calls by a process, one answer for each. @param by the words that come before the program. */
export async function callBy(
  by: readonly string[],
  protocol: 'tcp' | 'udp',
  address: string,
  port: number,
  count: number,
): Promise<string[]> {
  const child = spawnBy(by, ['call', protocol, address, `${port}`, `${count}`])
  const lines: string[] = []
  for await (const line of createInterface({ input: child.stdout! })) lines.push(line)
  return lines
}

const inNamespace = (namespace: string): readonly string[] => ['ip', 'netns', 'exec', namespace]

function spawnBy(by: readonly string[], args: readonly string[]): ChildProcess {
  const [program, ...rest] = [...by, process.execPath, fileURLToPath(import.meta.url), ...args]
  return spawn(program!, rest, { stdio: ['ignore', 'pipe', 'inherit'] })
}

if (process.argv[1] === fileURLToPath(import.meta.url)) {
  const [verb, first, second, third, fourth] = process.argv.slice(2)
  if (verb === 'serve') await serve(first!, Number(second))
  else if (verb === 'ask') await ask(first!, second!, third!, Number(fourth))
  else for (let i = 0; i < Number(fourth); i++) console.log(await call(first as 'tcp' | 'udp', second!, Number(third)))
}
