// What an operator does to a pod by kubectl, each case with what must come out of it: output, exit code and bytes. The same
// against any API server: kubectl is the client, and a pod of `opsPod` the target.

import type { ChildProcess } from 'node:child_process'
import { createHash, randomBytes } from 'node:crypto'
import { once } from 'node:events'
import { createReadStream, createWriteStream, mkdtempSync, rmSync } from 'node:fs'
import { get } from 'node:http'
import type { Socket } from 'node:net'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { setTimeout as sleep } from 'node:timers/promises'
import type { PodProcess } from './kubelet/process.ts'

export const PROTOCOLS = ['websocket', 'spdy'] as const
export type Protocol = (typeof PROTOCOLS)[number]

/** How kubectl is run. */
export type Kubectl = {
  /** With pipes for all three. */
  readonly start: (args: readonly string[], env: NodeJS.ProcessEnv) => ChildProcess
  /** With a terminal. */
  readonly startInTerminal: (args: readonly string[], env: NodeJS.ProcessEnv) => PodProcess
  /** A connection, with half-close, to a port of the loopback that kubectl listens on. */
  readonly connect: (port: number) => Promise<Socket>
}

export type Target = {
  readonly node: string
  readonly namespace: string
  readonly pod: string
  /** Of the pod's server. */
  readonly port: number
  /** Of each file that is copied. */
  readonly copyBytes: number
  /** Where the pod keeps files for a while; the pod may share it with others. */
  readonly directory: string
  /** Whether a metrics API is there. */
  readonly top: boolean
}

export type Outcome = {
  readonly name: string
  readonly protocol: Protocol | undefined
  readonly ok: boolean
  readonly ms: number
  /** What came out, or what was wrong with it. */
  readonly detail: string
}

export const LOG_LINES = 5_000
const RUN_TIMEOUT_MS = 60_000
const CONNECTIONS = 32
const CONNECTION_BYTES = 256 * 1024

/** Containers of a pod that the suite is run against, beside the pod's server. */
export const opsContainers = [
  { name: 'shell', command: ['sleep', 'infinity'] },
  { name: 'lines', command: ['sh', '-c', `seq 1 ${LOG_LINES}; exec sleep infinity`] },
  { name: 'ticker', command: ['sh', '-c', 'i=0; while :; do echo "tick $i"; i=$((i+1)); sleep 0.1; done'] },
  { name: 'crash', command: ['sh', '-c', 'echo starts; sleep 0.5; echo last words; exit 3'] },
  { name: 'echo', command: ['cat'], stdin: true },
] as const

type Output = { readonly code: number; readonly stdout: Buffer; readonly stderr: string }
type RunOptions = { readonly input?: Buffer | undefined; readonly timeoutMs?: number }
type Case = {
  readonly name: string
  readonly perProtocol: boolean
  readonly run: (session: Session) => Promise<string>
}

/** Runs all cases in turn. */
export async function runSuite(
  kubectl: Kubectl,
  target: Target,
  onOutcome: (outcome: Outcome) => void,
  only: (name: string) => boolean = () => true,
  protocols: readonly Protocol[] = PROTOCOLS,
): Promise<readonly Outcome[]> {
  const outcomes: Outcome[] = []
  for (const { name, perProtocol, run } of CASES)
    for (const protocol of perProtocol ? protocols : [undefined]) {
      if (!only(name) || (name === 'top' && !target.top)) continue
      const startedMs = performance.now()
      const ms = () => Math.round(performance.now() - startedMs)
      let outcome: Outcome
      try {
        const detail = await run(new Session(kubectl, target, protocol ?? protocols[0]!))
        outcome = { name, protocol, ok: true, ms: ms(), detail }
      } catch (error) {
        outcome = { name, protocol, ok: false, ms: ms(), detail: (error as Error).message }
      }
      outcomes.push(outcome)
      onOutcome(outcome)
    }
  return outcomes
}

class Session {
  readonly target: Target
  readonly kubectl: Kubectl
  readonly env: NodeJS.ProcessEnv
  readonly pod: readonly string[]

  constructor(kubectl: Kubectl, target: Target, protocol: Protocol) {
    this.kubectl = kubectl
    this.target = target
    // kubectl speaks WebSocket since 1.31 (since 1.30 when asked to) and SPDY before, or when told so.
    const webSockets = String(protocol === 'websocket')
    this.env = { KUBECTL_REMOTE_COMMAND_WEBSOCKETS: webSockets, KUBECTL_PORT_FORWARD_WEBSOCKETS: webSockets }
    this.pod = ['-n', target.namespace, target.pod]
  }

  start(...args: readonly string[]): ChildProcess {
    return this.kubectl.start(args, this.env)
  }

  /** To its end. */
  async run(args: readonly string[], { input, timeoutMs = RUN_TIMEOUT_MS }: RunOptions = {}): Promise<Output> {
    const child = this.start(...args)
    child.stdin!.on('error', () => {})
    child.stdin!.end(input)
    return outputOf(child, args, timeoutMs)
  }

  /** @throws Error unless it ends well with this output. */
  async expect(args: readonly string[], wanted: string | RegExp, options: RunOptions = {}): Promise<string> {
    const { code, stdout, stderr } = await this.run(args, options)
    const text = stdout.toString()
    const fits = typeof wanted === 'string' ? text === wanted : wanted.test(text)
    check(code === 0 && fits, `kubectl ${args.join(' ')}: code ${code}, ${brief(text)}, ${brief(stderr)}`)
    return text
  }

  exec(command: readonly string[], options: RunOptions = {}, flags: readonly string[] = []): Promise<Output> {
    return this.run(['exec', ...flags, ...this.pod, '-c', 'shell', '--', ...command], options)
  }
}

const CASES: readonly Case[] = [
  {
    name: 'logs',
    perProtocol: false,
    run: async (session) => {
      const lines = Array.from({ length: LOG_LINES }, (_, index) => `${index + 1}\n`)
      const logs = ['logs', ...session.pod, '-c', 'lines']
      await session.expect(logs, lines.join(''))
      await session.expect([...logs, '--tail=3'], lines.slice(-3).join(''))
      await session.expect([...logs, '--limit-bytes=10'], lines.join('').slice(0, 10))
      const stamped = await session.expect([...logs, '--timestamps', '--tail=1'], new RegExp(`^\\S+Z ${LOG_LINES}\n$`))
      check(!Number.isNaN(Date.parse(stamped.split(' ')[0]!)), `${brief(stamped)} has no time`)
      await session.expect([...logs, '--since=1h', '--tail=1'], lines.at(-1)!)
      await session.expect(['logs', ...session.pod, '-c', 'ticker', '--since=1s'], /^(tick \d+\n){5,15}$/)
      return `${LOG_LINES} lines whole; --tail, --since, --limit-bytes, --timestamps`
    },
  },
  {
    name: 'logs --previous',
    perProtocol: false,
    run: async (session) => {
      await session.expect(['logs', ...session.pod, '-c', 'crash', '--previous'], 'starts\nlast words\n')
      return 'of the run before'
    },
  },
  {
    name: 'logs -f',
    perProtocol: false,
    run: async (session) => {
      const args = ['logs', '-f', '--tail=1', ...session.pod, '-c', 'ticker']
      const child = session.start(...args)
      const text = await until(child, (seen) => seen.split('\n').length > 6, args)
      const numbers = text
        .trimEnd()
        .split('\n')
        .slice(0, 5)
        .map((line) => Number(line.split(' ')[1]))
      check(
        numbers.every((number, index) => number === numbers[0]! + index),
        `${brief(text)} has gaps`,
      )
      return 'line by line, until Ctrl-C'
    },
  },
  {
    name: 'exec',
    perProtocol: true,
    run: async (session) => {
      const both = await session.exec(['sh', '-c', 'echo out; echo err >&2; exit 7'])
      check(both.code === 7, `exit code ${both.code} instead of 7: ${both.stderr}`)
      check(both.stdout.toString() === 'out\n', `stdout ${brief(both.stdout.toString())}`)
      check(both.stderr === 'err\ncommand terminated with exit code 7\n', `stderr ${brief(both.stderr)}`)
      const quiet = await session.exec(['true'])
      check(quiet.code === 0 && quiet.stdout.length === 0 && quiet.stderr === '', `true: ${quiet.stderr}`)
      return 'stdout, stderr and exit code 7'
    },
  },
  {
    name: 'exec -i',
    perProtocol: true,
    run: async (session) => {
      const input = randomBytes(4 << 20)
      // wc sees all of it only if the end of stdin is told apart from the end of the connection.
      const counted = await session.exec(['sh', '-c', 'sha256sum; echo done'], { input }, ['-i'])
      check(
        counted.stdout.toString() === `${sha256(input)}  -\ndone\n`,
        `${counted.code}, ${brief(counted.stdout.toString())}, ${brief(counted.stderr)}`,
      )
      const echoed = await session.exec(['cat'], { input }, ['-i'])
      check(echoed.stdout.equals(input), `${echoed.stdout.length} of ${input.length} bytes came back`)
      return '4 MiB there, and there and back; the end of stdin arrives'
    },
  },
  {
    name: 'exec -it',
    perProtocol: true,
    run: async ({ kubectl, env, pod }) => {
      const args = ['exec', '-it', ...pod, '-c', 'shell', '--', 'sh']
      const terminal = kubectl.startInTerminal(args, env)
      try {
        const seen = reader(terminal.stdout, args)
        const type = (text: string): void => void terminal.stdin!.write(text)
        terminal.resize({ width: 101, height: 33 })
        await seen.until(/# $/)
        type('tty; stty size\r')
        await seen.until(/\/dev\/pts\/\d+\r\n33 101\r\n# $/)
        terminal.resize({ width: 77, height: 22 })
        type('until stty size | grep "^22 77"; do sleep 0.05; done\r')
        await seen.until(/\n22 77\r\n# $/)
        // Ctrl-C goes to the program in the pod. What is typed before that runs would be flushed by it.
        type("sh -c 'echo sta''rted; exec sleep 100'\r")
        await seen.until(/\nstarted\r\n/)
        type('\u0003')
        await seen.until(/started\r\n\^C\r\n# $/)
        type('exit 5\r')
        const code = await terminal.exited
        check(code === 5, `exit code ${code} instead of 5: ${brief(seen.text())}`)
      } finally {
        terminal.kill()
      }
      return 'a terminal with its size, resized; Ctrl-C; exit code 5'
    },
  },
  {
    name: 'attach',
    perProtocol: true,
    run: async (session) => {
      const args = ['attach', '-i', ...session.pod, '-c', 'echo']
      const child = session.start(...args)
      const word = `hello ${randomBytes(4).toString('hex')}`
      const timer = setInterval(() => child.stdin!.write(`${word}\n`), 500)
      try {
        await until(child, (seen) => seen.includes(word), args)
      } finally {
        clearInterval(timer)
      }
      return 'a line there and back'
    },
  },
  {
    name: 'cp',
    perProtocol: true,
    run: async (session) => {
      const { pod, namespace, copyBytes, directory } = session.target
      const here = mkdtempSync(join(tmpdir(), 'fulmar-cp-'))
      const there = `${directory}/fulmar-cp-${randomBytes(6).toString('hex')}`
      try {
        const sum = await writeRandom(join(here, 'up'), copyBytes)
        const seconds: number[] = []
        const copy = async (from: string, to: string): Promise<void> => {
          const startedMs = performance.now()
          const { code, stderr } = await session.run(['cp', '-c', 'shell', from, to], { timeoutMs: 280_000 })
          check(code === 0, `cp ${from} ${to}: code ${code}, ${brief(stderr)}`)
          seconds.push((performance.now() - startedMs) / 1000)
        }
        await copy(join(here, 'up'), `${namespace}/${pod}:${there}`)
        const counted = await session.exec(['sha256sum', there])
        check(counted.stdout.toString().startsWith(sum), `other bytes in the pod: ${counted.stdout} ${counted.stderr}`)
        await copy(`${namespace}/${pod}:${there}`, join(here, 'down'))
        check((await sha256OfFile(join(here, 'down'))) === sum, 'other bytes came back')
        const rates = seconds.map((time) => `${(copyBytes / time / 2 ** 20).toFixed(0)} MiB/s`)
        return `${(copyBytes / 2 ** 20).toFixed(0)} MiB, up ${rates[0]}, down ${rates[1]}`
      } finally {
        rmSync(here, { recursive: true, force: true })
        await session.exec(['rm', '-f', there])
      }
    },
  },
  {
    name: 'port-forward',
    perProtocol: true,
    run: async (session) => {
      const args = ['port-forward', ...session.pod, `:${session.target.port}`]
      const child = session.start(...args)
      const stop = stopper(child)
      try {
        const seen = reader(child.stdout!, args, () => errors)
        let errors = ''
        child.stderr!.setEncoding('utf8').on('data', (chunk: string) => (errors += chunk))
        const [, port = ''] = await seen.until(/Forwarding from 127\.0\.0\.1:(\d+) /)
        const { connect } = session.kubectl
        const path = `/bytes?n=${CONNECTION_BYTES}`
        const bodies = await Promise.all(
          Array.from({ length: CONNECTIONS }, async () => bytesOf(await connect(Number(port)), path)),
        )
        check(
          bodies.every((bytes) => bytes === CONNECTION_BYTES),
          `bodies of ${[...new Set(bodies)].join(', ')} bytes instead of ${CONNECTION_BYTES}`,
        )
        check(
          (await answerToHalfClosed(await connect(Number(port)))).includes('"path":"/"'),
          'no answer to who half-closes',
        )
        return `${CONNECTIONS} connections of ${CONNECTION_BYTES >> 10} KiB at once, and one half-closed`
      } finally {
        await stop()
      }
    },
  },
  {
    name: 'get --raw nodes/proxy',
    perProtocol: false,
    run: async (session) => {
      const raw = (path: string) => ['get', '--raw', `/api/v1/nodes/${session.target.node}/proxy${path}`]
      await session.expect(raw('/metrics'), new RegExp(`kubelet_node_name\\{node="${session.target.node}"\\} 1`))
      await session.expect(raw('/metrics/resource'), /^node_cpu_usage_seconds_total [\d.e+-]+ \d+$/m)
      const pods = await session.expect(raw('/pods'), /^\{"kind":"PodList"/)
      const { items } = JSON.parse(pods) as { items: { spec: { nodeName: string } }[] }
      check(
        items.length > 0 && items.every(({ spec }) => spec.nodeName === session.target.node),
        'pods of another node',
      )
      return '/metrics, /metrics/resource and /pods of the node itself'
    },
  },
  {
    name: 'proxy',
    perProtocol: false,
    run: async (session) => {
      const args = ['proxy', '--port=0']
      const child = session.start(...args)
      const stop = stopper(child)
      try {
        const [, port] = await reader(child.stdout!, args).until(/Starting to serve on 127\.0\.0\.1:(\d+)/)
        const path = `/api/v1/nodes/${session.target.node}/proxy/stats/summary`
        const bytes = await bytesOf(await session.kubectl.connect(Number(port)), path)
        return `/stats/summary, ${bytes} bytes`
      } finally {
        await stop()
      }
    },
  },
  {
    name: 'top',
    perProtocol: false,
    run: async (session) => {
      const { node, pod, namespace } = session.target
      await session.expect(
        ['top', 'node', node, '--no-headers'],
        new RegExp(`^${node} +\\d+m +\\d+% +\\d+Mi +\\d+% *\n$`),
      )
      await session.expect(
        ['top', 'pod', '-n', namespace, pod, '--no-headers'],
        new RegExp(`^${pod} +\\d+m +\\d+Mi *\n$`),
      )
      return 'node and pod'
    },
  },
]

export const CASE_NAMES: readonly string[] = CASES.map(({ name }) => name)

function check(holds: boolean, message: string): asserts holds {
  if (!holds) throw new Error(message)
}

const brief = (text: string): string => JSON.stringify(text.length > 300 ? `${text.slice(0, 300)}…` : text)
const sha256 = (bytes: Buffer): string => createHash('sha256').update(bytes).digest('hex')

function outputOf(child: ChildProcess, args: readonly string[], timeoutMs: number): Promise<Output> {
  return new Promise((resolve, reject) => {
    const chunks: Buffer[] = []
    let stderr = ''
    child.stdout!.on('data', (chunk: Buffer) => chunks.push(chunk))
    child.stderr!.setEncoding('utf8').on('data', (text: string) => (stderr += text))
    const timer = setTimeout(() => {
      child.kill('SIGKILL')
      reject(new Error(`kubectl ${args.join(' ')}: no end after ${timeoutMs / 1000} s; ${brief(stderr)}`))
    }, timeoutMs)
    child.once('error', reject)
    child.once('close', (code) => {
      clearTimeout(timer)
      resolve({ code: code ?? 255, stdout: Buffer.concat(chunks), stderr })
    })
  })
}

/** Until its output is as wanted; then kubectl is ended as by Ctrl-C, and must end. */
async function until(child: ChildProcess, holds: (text: string) => boolean, args: readonly string[]): Promise<string> {
  const stop = stopper(child)
  try {
    let text = ''
    let errors = ''
    child.stderr!.setEncoding('utf8').on('data', (chunk: string) => (errors += chunk))
    const deadline = AbortSignal.timeout(RUN_TIMEOUT_MS)
    for await (const chunk of child.stdout!.setEncoding('utf8') as AsyncIterable<string>) {
      text += chunk
      if (holds(text)) return text
      if (deadline.aborted) break
    }
    throw new Error(`kubectl ${args.join(' ')}: ${brief(text)}, ${brief(errors)}`)
  } finally {
    await stop()
  }
}

function stopper(child: ChildProcess): () => Promise<void> {
  const ended = once(child, 'exit')
  return async () => {
    child.kill('SIGINT')
    await Promise.race([ended, sleep(5_000)])
    child.kill('SIGKILL')
  }
}

function reader(stream: NodeJS.ReadableStream, args: readonly string[], errors: () => string = () => '') {
  let text = ''
  let changed = Promise.withResolvers<void>()
  const tell = (): void => {
    changed.resolve()
    changed = Promise.withResolvers()
  }
  let ended = false
  stream.on('data', (chunk: Buffer | string) => {
    text += String(chunk)
    tell()
  })
  stream.once('close', () => {
    ended = true
    tell()
  })
  return {
    text: () => text,
    /** @throws Error when it does not come within 30 s, or the stream ends. */
    async until(pattern: RegExp): Promise<RegExpExecArray> {
      const late = sleep(RUN_TIMEOUT_MS / 2, 'late', { ref: false })
      for (;;) {
        const { promise } = changed
        const found = pattern.exec(text)
        if (found !== null) return found
        if (ended || (await Promise.race([promise, late])) === 'late')
          throw new Error(`kubectl ${args.join(' ')}: no ${pattern} in ${brief(text)} ${brief(errors())}`)
      }
    },
  }
}

function bytesOf(socket: Socket, path: string): Promise<number> {
  return new Promise((resolve, reject) => {
    get({ createConnection: () => socket, path, host: 'localhost', timeout: RUN_TIMEOUT_MS }, (response) => {
      let bytes = 0
      response.on('data', (chunk: Buffer) => (bytes += chunk.length))
      response.on('end', () => resolve(bytes))
      response.on('error', reject)
    }).on('error', reject)
  })
}

/** Says all it has to say and closes its side; the answer must come all the same. */
async function answerToHalfClosed(socket: Socket): Promise<string> {
  socket.setTimeout(RUN_TIMEOUT_MS / 2)
  socket.on('timeout', () => socket.destroy(new Error('no answer to who half-closes')))
  socket.end('GET / HTTP/1.1\r\nHost: pod\r\nConnection: close\r\n\r\n')
  let text = ''
  for await (const chunk of socket as AsyncIterable<Buffer>) text += chunk.toString()
  return text
}

async function writeRandom(path: string, bytes: number): Promise<string> {
  const hash = createHash('sha256')
  const file = createWriteStream(path)
  const block = randomBytes(1 << 20)
  for (let left = bytes, index = 0; left > 0; left -= block.length, index++) {
    // Blocks that differ, so that one left out or twice is noticed.
    block.writeUInt32BE(index, 0)
    const part = Buffer.from(block.subarray(0, left))
    hash.update(part)
    if (!file.write(part)) await once(file, 'drain')
  }
  file.end()
  await once(file, 'close')
  return hash.digest('hex')
}

async function sha256OfFile(path: string): Promise<string> {
  const hash = createHash('sha256')
  for await (const chunk of createReadStream(path) as AsyncIterable<Buffer>) hash.update(chunk)
  return hash.digest('hex')
}
