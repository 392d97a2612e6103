import { execFile } from 'node:child_process'
import { mkdtempSync, rmSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import t, { type Test } from 'tap'
import { createLog } from '../../lib/log.ts'
import { serveStatus } from '../../lib/net/status-server.ts'
import type { AgentStatus, DaemonStatus, GatewayStatus, PathStatus } from '../../lib/status.ts'
import { fulmar, MAIN } from './fulmar.ts'

const log = createLog('test', 'silent')

const metadata = { source: 'cloud', server: 'https://203.0.113.10', objects: {} } as const
const path = (pool: string, more: Partial<PathStatus> = {}): PathStatus => ({
  pool,
  node: `${pool}1`,
  rung: 'direct',
  since: Date.now() - 60_000,
  reason: '',
  candidates: [],
  ...more,
})
const relayed = path('south', {
  rung: 'relay-udp',
  reason: 'NATs do not punch; next try in 5 s',
  candidates: [{ kind: 'host', address: '192.168.2.11:40112', result: 'no answer to 40 probes' }],
  remedies: { need: 'one', steps: ['forward UDP port 40112', 'give south IPv6'] },
})
const gateway = (...paths: readonly PathStatus[]): GatewayStatus => ({
  kind: 'gateway',
  version: '0',
  node: 'north1',
  pool: 'north',
  startedAt: 0,
  relay: { url: 'https://203.0.113.10', state: 'connected', since: 0 },
  wireguard: { implementation: 'kernel', publicKey: 'k', port: 51820 },
  nat: { mapping: 'none', filtering: 'none', udp: 'open', mapped: '203.0.113.7:51820' },
  paths,
  problems: [],
  metadata,
})
const agent = (active: AgentStatus['gateway']): AgentStatus => ({
  kind: 'agent',
  version: '0',
  node: 'north2',
  pool: 'north',
  startedAt: 0,
  dns: { addresses: [], queries: 0, takeover: [] },
  services: { count: 0, endpoints: 0, path: 'nft' },
  gateway: active,
  problems: [],
  metadata,
})
const NORTH1 = { node: 'north1', address: '192.168.1.11' }

type Row = {
  readonly daemons: readonly DaemonStatus[]
  readonly argv?: readonly string[]
  readonly code: number
  readonly stdout?: RegExp
  readonly stderr?: RegExp
}
const rows: Readonly<Record<string, Row>> = {
  'a table': {
    daemons: [gateway(path('kiel', { rttMs: 12.4, loss: 0.004, endpoint: '198.18.2.2:5' }), relayed)],
    code: 0,
    stdout:
      /^Paths of pool north, [^\n]*north1\n +TO POOL +PATH .*\n +kiel +direct +1m0\ds +12\.4 ms +<1 % +198\.18\.2\.2:5 +-\n +south +relay-udp .* NATs do not punch; next try in 5 s\n\nfulmar paths POOL/,
  },
  'the story of one': {
    daemons: [gateway(path('kiel'), relayed)],
    argv: ['south'],
    code: 0,
    stdout:
      /^north → south: relay-udp for 1m0\ds \(north1 → south1\)\n +NAT here +none \(mapping none, filtering none\), seen at 203\.0\.113\.7:51820\n +why +NATs do[\s\S]*192\.168\.2\.11:40112 +host +no answer to 40 probes\n +for a better path, one of\n +- forward UDP port 40112\n +- give south IPv6\n$/,
  },
  'by its node': { daemons: [gateway(path('kiel'), relayed)], argv: ['south1'], code: 0, stdout: /^north → south: / },
  'a pool with a standby': {
    daemons: [gateway(path('kiel'), path('south', { node: 'south2', standby: true }), relayed)],
    argv: ['south'],
    code: 0,
    stdout:
      /^north → south: relay-udp .*\(north1 → south1\)\n[\s\S]*\nnorth → south: .*\(north1 → south2, which stands by\)\n/,
  },
  'a table with a standby': {
    daemons: [gateway(path('south', { node: 'south2', standby: true }), relayed)],
    code: 0,
    stdout: /\n +south +relay-udp .*\n +south \(south2, standby\) +direct /,
  },
  'a single pair': { daemons: [gateway(relayed)], code: 0, stdout: /^north → south: / },
  'one without a path': { daemons: [gateway(path('kiel', { rung: 'none' }))], code: 1, stdout: /^north → kiel: none/ },
  'no other pool': { daemons: [gateway()], code: 0, stdout: /none: no other pool is known/ },
  misspelled: { daemons: [gateway(relayed)], argv: ['suoth'], code: 1, stderr: /suoth: .* did you mean south\?\n$/ },
  'no such pool': {
    daemons: [gateway(relayed, path('south', { node: 'south2', standby: true }), path('kiel'))],
    argv: ['timbuktu'],
    code: 1,
    stderr: /there are south, kiel\n$/,
  },
  'its own pool': { daemons: [gateway(relayed)], argv: ['north'], code: 1, stderr: /it is the pool of this node\n$/ },
  'two words': { daemons: [], argv: ['a', 'b'], code: 64, stderr: /^fulmar paths: b: nothing is expected here/ },
  'nothing runs': { daemons: [], code: 1, stderr: /no gateway runs here: there is no socket in / },
  'an agent that knows the gateway': {
    daemons: [agent(NORTH1)],
    code: 1,
    stderr:
      /no gateway runs on this node, north2; the active gateway of pool north is on north1: run fulmar paths there/,
  },
  'an agent that knows none': { daemons: [agent(undefined)], code: 1, stderr: /start it here: fulmar gateway\n$/ },
  'a gateway that stands by': { daemons: [gateway(), agent(NORTH1)], code: 1, stderr: /stands by; .* is on north1/ },
}
for (const [name, { daemons, argv = [], code, stdout = /^$/, stderr = /^$/ }] of Object.entries(rows))
  t.test(name, async (t) => {
    const answer = await fulmarPaths(t, daemons, ...argv)
    t.equal(answer.code, code, `exits with ${code}`)
    t.match(answer.stdout, stdout)
    t.match(answer.stderr, stderr)
  })

t.test('as JSON, with what a better path would take', async (t) => {
  const { stdout } = await fulmarPaths(t, [gateway(relayed)], '--json')
  t.match(JSON.parse(stdout), { node: 'north1', pool: 'north', paths: [{ pool: 'south', remedies: relayed.remedies }] })
})

t.test('a gateway that was killed', async (t) => {
  const dir = runDir(t)
  writeFileSync(join(dir, 'gateway.sock'), '')
  const { code, stderr } = await fulmar('paths', '--run-dir', dir)
  t.equal(code, 1)
  t.match(stderr, /does not answer: it was killed and left its socket; start it: fulmar gateway/)
})

t.test('--watch tells of every change', async (t) => {
  let paths = [relayed]
  const dir = runDir(t)
  const controller = new AbortController()
  t.teardown(() => controller.abort())
  const status = (): GatewayStatus => gateway(...paths)
  await serveStatus({ socket: join(dir, 'gateway.sock'), status, healthy: () => true, log }, controller.signal)
  const child = execFile(process.execPath, [MAIN, 'paths', '--watch', '--json', '--run-dir', dir])
  t.teardown(() => child.kill())
  const rungs: string[] = []
  child.stdout!.setEncoding('utf8')
  for await (const text of child.stdout!) {
    for (const line of String(text).trim().split('\n'))
      rungs.push((JSON.parse(line) as { paths: PathStatus[] }).paths[0]!.rung)
    paths = [path('south')]
    if (rungs.length === 2) break
  }
  t.strictSame(rungs, ['relay-udp', 'direct'])
})

function runDir(t: Test): string {
  const dir = mkdtempSync(join(tmpdir(), 'fulmar-'))
  t.teardown(() => rmSync(dir, { recursive: true }))
  return dir
}

async function fulmarPaths(t: Test, daemons: readonly DaemonStatus[], ...argv: readonly string[]) {
  const dir = runDir(t)
  const controller = new AbortController()
  t.teardown(() => controller.abort())
  for (const daemon of daemons) {
    const socket = join(dir, `${daemon.kind}.sock`)
    await serveStatus({ socket, status: () => daemon, healthy: () => true, log }, controller.signal)
  }
  return fulmar('paths', ...argv, '--run-dir', dir)
}
