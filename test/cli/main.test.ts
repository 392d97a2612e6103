import { mkdtempSync, rmSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import t from 'tap'
import { createLog } from '../../lib/log.ts'
import { serveStatus } from '../../lib/net/status-server.ts'
import type { RelayStatus } from '../../lib/status.ts'
import { fulmar } from './fulmar.ts'

const rows: readonly [argv: readonly string[], code: number, stdout: RegExp, stderr: RegExp][] = [
  [[], 0, /^fulmar COMMAND[\s\S]* {2}gateway /, /^$/],
  [['help'], 0, /^fulmar COMMAND/, /^$/],
  [['--version'], 0, /^fulmar \d+\.\d+\.\d+\n$/, /^$/],
  [['sttaus'], 64, /^$/, /there is no command "sttaus"; did you mean fulmar status\?\n$/],
  [['frobnicate'], 64, /^$/, /there is no command "frobnicate"; see fulmar help\n$/],
  [['constructor'], 64, /^$/, /there is no command "constructor"/],
  [['help', 'status'], 0, /^fulmar status \[--json\][\s\S]*--run-dir DIR/, /^$/],
  [
    ['status', '--json', '--colour', 'x'],
    64,
    /^$/,
    /--colour: no such flag; see --help\n.*x: nothing|--colour: no such flag/,
  ],
  [['help', 'paths'], 0, /^fulmar paths \[POOL\|NODE\] \[--json\] \[--watch\]/, /^$/],
  [['kubeconfig', 'admin', '--server', 'https://x'], 64, /^$/, /^fulmar kubeconfig: admin: nothing is expected here/],
  [['token', '--node', 'h1'], 64, /^$/, /^fulmar token: create: is missing; write fulmar token create --node/],
  [['token', 'create', 'x', '--node', 'h1'], 64, /^$/, /^fulmar token: x: nothing is expected here/],
  [['relay', '--help'], 0, /^fulmar relay --public HOST[\s\S]*--stun-ports PORT,PORT/, /^$/],
  [['status', '--run-dir', '/nonexistent'], 1, /^$/, /no daemon runs here[\s\S]*fulmar agent[\s\S]*fulmar relay/],
]
t.test('what is typed and what comes of it', async (t) => {
  for (const [argv, code, stdout, stderr] of rows) {
    const answer = await fulmar(...argv)
    const name = `fulmar ${argv.join(' ')}`
    t.equal(answer.code, code, `${name}: exits with ${code}`)
    t.match(answer.stdout, stdout, `${name}: stdout`)
    t.match(answer.stderr, stderr, `${name}: stderr`)
  }
})

t.test('fulmar status asks the daemon', async (t) => {
  const dir = mkdtempSync(join(tmpdir(), 'fulmar-'))
  t.teardown(() => rmSync(dir, { recursive: true }))
  const status: RelayStatus = {
    kind: 'relay',
    version: '0.1.0',
    startedAt: Date.now(),
    stun: { addresses: ['203.0.113.10:3478'], requests: 0 },
    sessions: [],
    packets: { forwarded: 0, bytes: 0, overKeepalive: 0, dropped: 0, pairs: [] },
    udpRelay: undefined,
    manifests: undefined,
  }
  const controller = new AbortController()
  t.teardown(() => controller.abort())
  const options = { socket: join(dir, 'relay.sock'), status: () => status, healthy: () => true }
  await serveStatus({ ...options, log: createLog('test', 'silent') }, controller.signal)
  const table = await fulmar('status', '--run-dir', dir)
  t.equal(table.code, 0)
  t.match(table.stdout, /^No problems\n\nRelay on [\s\S]*STUN on 203\.0\.113\.10:3478/)
  const { stdout } = await fulmar('status', '--json', '--run-dir', dir)
  t.match(JSON.parse(stdout), { daemons: { relay: { kind: 'relay', startedAt: status.startedAt } }, silent: [] })
})
