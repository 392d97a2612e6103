// The relay as a process, and everything that a node does with it before a gateway starts: token, join, sessions.

import { spawn, type ChildProcess } from 'node:child_process'
import { once } from 'node:events'
import { mkdir, mkdtemp, readFile, rm, stat, writeFile } from 'node:fs/promises'
import { request } from 'node:http'
import { get } from 'node:https'
import { createServer } from 'node:net'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { setTimeout as wait } from 'node:timers/promises'
import t from 'tap'
import { loadIdentity } from '../../lib/net/identity.ts'
import { bindFrame, dataFrame, packetOf, PACKETS_PATH } from '../../lib/wire/packet-frame.ts'
import { decodeSignal, encodeSignal, SIGNAL_PATH } from '../../lib/wire/signal.ts'
import { closeCode, dial as dialRelay, reader } from './mesh.ts'

const CLI = new URL('../../cli/main.ts', import.meta.url).pathname
const folder = await mkdtemp(join(tmpdir(), 'fulmar-main-'))
const children: ChildProcess[] = []
t.teardown(async () => {
  for (const child of children) child.kill('SIGKILL')
  await rm(folder, { recursive: true })
})

const run = async (...args: string[]) => {
  const child = spawn(process.execPath, [CLI, ...args], { stdio: ['ignore', 'pipe', 'pipe'] })
  const texts = { stdout: '', stderr: '' }
  child.stdout.on('data', (chunk) => (texts.stdout += chunk))
  child.stderr.on('data', (chunk) => (texts.stderr += chunk))
  const [code] = (await once(child, 'close')) as [number]
  return { code, ...texts }
}

const freePort = (): Promise<number> =>
  new Promise((resolve) => {
    const server = createServer().listen(0, '127.0.0.1', () => {
      const { port } = server.address() as { port: number }
      server.close(() => resolve(port))
    })
  })

const port = await freePort()
const relayArgs = (stateDir: string) => [
  'relay',
  `--listen=127.0.0.1:${port}`,
  '--public=127.0.0.1',
  `--state-dir=${stateDir}`,
  `--run-dir=${join(folder, 'run')}`,
  `--metrics=127.0.0.1:${metricsPort}`,
  `--manifests=${join(folder, 'manifests')}`,
  '--log-level=error',
]
const metricsPort = await freePort()
const stateDir = join(folder, 'relay')

async function startRelay(): Promise<ChildProcess> {
  const child = spawn(process.execPath, [CLI, ...relayArgs(stateDir)], { stdio: ['ignore', 'inherit', 'inherit'] })
  children.push(child)
  for (let i = 0; i < 500; i++) {
    if (
      (await stat(join(folder, 'run', 'relay.sock')).catch(() => undefined)) &&
      (await status().catch(() => undefined))
    )
      return child
    await wait(10)
  }
  throw new Error('the relay did not start')
}

const status = (): Promise<unknown> =>
  new Promise((resolve, reject) => {
    request({ socketPath: join(folder, 'run', 'relay.sock'), path: '/status' }, (response) => {
      let text = ''
      response.on('data', (chunk) => (text += chunk))
      response.on('end', () => resolve(JSON.parse(text)))
    })
      .on('error', reject)
      .end()
  })

const relay = `https://127.0.0.1:${port}`
const joinAs = (node: string, token: string, ...more: string[]) =>
  run('join', '--relay', relay, '--token', token, '--state-dir', join(folder, node), ...more)
const dial = async (node: string, path: string) => {
  const { caPem, certificatePem, keyPem } = await loadIdentity(join(folder, node))
  return dialRelay(port, path, caPem, { certificatePem, keyPem })
}

await mkdir(join(folder, 'manifests'))
await writeFile(join(folder, 'manifests', 'node.yaml'), 'apiVersion: v1\nkind: Node\nmetadata:\n  name: h1\n')
let relayProcess = await startRelay()
const created = await run('token', 'create', '--node', 'h1,s1,spare', '--state-dir', stateDir)
const tokens = new Map(
  created.stdout
    .trim()
    .split('\n')
    .map((line) => line.split(' ') as [string, string]),
)

t.test('tokens', async (t) => {
  t.equal(created.code, 0, created.stderr)
  t.same([...tokens.keys()], ['h1', 's1', 'spare'])
  const rows: readonly [name: string, args: string[], error: RegExp][] = [
    ['no node', ['create', '--state-dir', stateDir], /--node: is required/],
    ['a bad name', ['create', '--node', 'H1', '--state-dir', stateDir], /H1 is not a name for a Node/],
    ['too long a life', ['create', '--node', 'h1', '--ttl', '25h', '--state-dir', stateDir], /at most 1d/],
    ['nothing to do', ['--node', 'h1', '--state-dir', stateDir], /fulmar token create/],
  ]
  for (const [name, args, error] of rows) {
    const { code, stderr } = await run('token', ...args)
    t.equal(code, 64, name)
    t.match(stderr, error, name)
  }
})

t.test('joins', async (t) => {
  const token = tokens.get('h1')!
  const joined = await joinAs('h1', token)
  t.equal(joined.code, 0, joined.stderr)
  t.match(joined.stdout, /joined https:\/\/127\.0\.0\.1:\d+ as node h1, until \d{4}-/)
  t.equal((await stat(join(folder, 'h1/identity/node.key'))).mode & 0o777, 0o600)
  t.match(JSON.parse(await readFile(join(folder, 'h1/node.json'), 'utf8')), {
    node: 'h1',
    relays: [relay],
    server: relay,
  })

  const onNode = await run('token', 'create', '--node', 'h1', '--state-dir', join(folder, 'h1'))
  t.match(onNode, { code: 64, stderr: /is a node, not a relay/ }, 'a node does not become a second CA')
  const wrongCa = token.replace(/.{4}$/, 'AAAA')
  const other = await run('token', 'create', '--node', 'h1', '--state-dir', join(folder, 'other'))
  t.match(other.stderr, /there was no CA/, 'a state folder that is none is not passed over in silence')
  const rows: readonly [
    name: string,
    run: Promise<{ code: number; stdout: string; stderr: string }>,
    code: number,
    text: RegExp,
  ][] = [
    ['again', joinAs('h1', token), 0, /already node h1 .*nothing to do/],
    [
      'elsewhere with the same token',
      joinAs('thief', token),
      1,
      /refused: the token for node h1 was used before.*fulmar token create/,
    ],
    ['forced with the same token', joinAs('h1', token, '--force'), 1, /was used before/],
    ['for another node', joinAs('h1', tokens.get('s1')!), 1, /already node h1 .*--force/],
    ['the wrong name', joinAs('x', tokens.get('s1')!, '--node', 'x'), 1, /token is for node s1, not for x/],
    [
      'a CA that is not there',
      joinAs('x', wrongCa),
      1,
      /made by another relay, or someone is in between; nothing was sent/,
    ],
    ['the token of another relay', joinAs('x', other.stdout.trim().split(' ')[1]!), 1, /made by another relay/],
    [
      'nobody there',
      run(
        'join',
        '--relay',
        `https://127.0.0.1:${metricsPort + 1}`,
        '--token',
        token,
        '--state-dir',
        join(folder, 'nowhere'),
      ),
      1,
      /cannot reach the relay.*ECONNREFUSED/,
    ],
    [
      'something else there',
      run(
        'join',
        '--relay',
        `https://127.0.0.1:${metricsPort}`,
        '--token',
        token,
        '--state-dir',
        join(folder, 'nowhere'),
      ),
      1,
      /cannot reach the relay/,
    ],
    ['no token', run('join', '--relay', relay, '--token', 'x'), 64, /--token "x": is not a join token/],
  ]
  for (const [name, running, code, text] of rows) {
    const { code: actual, stdout, stderr } = await running
    t.equal(actual, code, name)
    t.match(stdout + stderr, text, name)
    t.notMatch(stderr, /\n {4}at /, `${name}: no stack`)
  }
  t.equal((await joinAs('s1', tokens.get('s1')!)).code, 0, 'none of this used the token of s1 up')
})

t.test('a join that was cut off is finished by the same command', async (t) => {
  // What is there when the answer was lost, or the machine died before it was in place.
  const token = tokens.get('spare')!
  t.equal((await joinAs('spare', token)).code, 0)
  const key = await readFile(join(folder, 'spare/identity/node.key'))
  await writeFile(join(folder, 'spare/identity/pending.key'), key)
  await rm(join(folder, 'spare/identity/node.key'))
  t.equal((await loadIdentity(join(folder, 'spare'))).keyPem, String(key), 'all but the last step')
  await rm(join(folder, 'spare/identity/node.crt'))
  const again = await joinAs('spare', token)
  t.equal(again.code, 0, again.stderr)
  t.same(await readFile(join(folder, 'spare/identity/node.key')), key)
})

t.test('sessions, status and metrics; and the same after kill -9', { timeout: 30_000 }, async (t) => {
  for (const life of ['first', 'second']) {
    const [h1, s1] = [await dial('h1', PACKETS_PATH), await dial('s1', PACKETS_PATH)]
    const atS1 = reader(s1)
    h1.send(bindFrame(0, 's1'))
    h1.send(dataFrame(0, Buffer.alloc(100, 7)))
    await atS1.next()
    t.same(packetOf(await atS1.next()), Buffer.alloc(100, 7), life)

    const signals = await dial('s1', SIGNAL_PATH)
    const frames = reader(signals)
    signals.send(encodeSignal({ kind: 'hello', version: 1, role: 'gateway' }))
    t.match(decodeSignal((await frames.next()).toString()), { kind: 'welcome' })
    if (life === 'first') {
      const announcer = await dial('h1', SIGNAL_PATH)
      announcer.send(encodeSignal({ kind: 'hello', version: 1, role: 'gateway' }))
      announcer.send(
        encodeSignal({
          kind: 'announce',
          node: 'h1',
          announcement: { certificate: 'c', payload: 'p', signature: 's' },
        }),
      )
    }
    t.match(decodeSignal((await frames.next()).toString()), { kind: 'announce', node: 'h1' }, `${life}: announced`)

    t.match(await status(), { kind: 'relay', packets: { forwarded: 1, bytes: 100, overKeepalive: 1, dropped: 0 } })
    const metrics = await (await fetch(`http://127.0.0.1:${metricsPort}/metrics`)).text()
    t.match(metrics, /^fulmar_relay_packets_total 1$/m)
    if (life === 'second') break

    const ended = closeCode(h1)
    const killedAt = performance.now()
    relayProcess.kill('SIGKILL')
    await ended
    relayProcess = await startRelay()
    t.ok(performance.now() - killedAt < 5000, `back after ${(performance.now() - killedAt).toFixed(0)} ms`)
  }
})

t.test('the Kubernetes API knows nodes by their certificates', async (t) => {
  const { caPem, certificatePem, keyPem } = await loadIdentity(join(folder, 'h1'))
  const list = (client: object) =>
    new Promise<{ code: number; text: string }>((resolve, reject) => {
      get(`${relay}/api/v1/nodes`, { ca: caPem, agent: false, ...client }, (response) => {
        let text = ''
        response.on('data', (chunk) => (text += chunk))
        response.on('end', () => resolve({ code: response.statusCode!, text }))
      }).on('error', reject)
    })
  const nodes = await list({ cert: certificatePem, key: keyPem })
  t.match(JSON.parse(nodes.text), { kind: 'NodeList', items: [{ metadata: { name: 'h1' } }] })
  t.match(await list({}), { code: 401, text: /Unauthorized/ })
})

t.test('a port in use; and a clean end', async (t) => {
  const second = relayArgs(join(folder, 'second'))
  t.match(await run(...second), { code: 64, stderr: 'another fulmar relay answers on' })
  t.match(await run(...second, `--run-dir=${join(folder, 'second-run')}`), {
    code: 64,
    stderr: new RegExp(`cannot listen on 127\\.0\\.0\\.1:${port}: another process has it`),
  })
  const h1 = await dial('h1', SIGNAL_PATH)
  const ended = closeCode(h1)
  relayProcess.kill('SIGTERM')
  const [exit] = (await once(relayProcess, 'exit')) as [number]
  t.equal(exit, 0)
  t.equal(await ended, 1001)
})
