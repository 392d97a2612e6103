// The whole of a lab, daemons too: nodes join, everything answers, the supervisor keeps it so.

import { readdirSync, readFileSync, rmSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { setTimeout as sleep } from 'node:timers/promises'
import t from 'tap'
import { openLab, type Lab, type LabEvent } from './lab.ts'

t.setTimeout(120_000)
const CALL_WITHIN_MS = 10_000

async function callUntilAnswered(lab: Lab, host: string, url: string, family: 4 | 6): Promise<Record<string, unknown>> {
  const deadline = Date.now() + CALL_WITHIN_MS
  for (;;) {
    const { code, stdout } = await lab.exec(host, ['curl', `-${family}`, '-s', '-m', '2', url])
    if (code === 0) return JSON.parse(stdout) as Record<string, unknown>
    if (Date.now() > deadline) return { code }
    await sleep(100)
  }
}

async function once(condition: () => Promise<boolean>): Promise<boolean> {
  for (const deadline = Date.now() + CALL_WITHIN_MS; Date.now() < deadline; await sleep(100))
    if (await condition()) return true
  return false
}

t.test('two sites on one LAN prefix, one without UDP', async (t) => {
  const lines: string[] = []
  const events: LabEvent[] = []
  const lab = await openLab(
    {
      id: `la${process.pid % 100_000}s`,
      pools: ['east', 'west'],
      nodes: 1,
      overlapLans: true,
      nat: new Map([['west', 'udp-blocked']]),
      until: 'nodes',
    },
    { progress: (line) => lines.push(line) },
  )
  t.teardown(() => lab.close())
  lab.onEvent((event) => events.push(event))
  await lab.startGateways()
  t.strictSame(
    events
      .filter(({ kind }) => kind === 'ready')
      .map(({ host }) => host)
      .toSorted(),
    ['cloud', 'east1', 'west1'],
    'a gateway per pool',
  )
  t.match(lines.join('\n'), /relay at https:\/\/203\.0\.113\.10:443\n3 nodes joined: cloud, east1, west1\n/, 'progress')

  for (const family of [4, 6] as const) {
    const client = lab.topology.pods.find(({ host }) => host === 'east1-client')!.addresses[family === 4 ? 0 : 1]
    t.match(
      await callUntilAnswered(lab, 'east1-client', 'http://web-west.shop/', family),
      { pod: 'west1-shop', client },
      `a call by name over IPv${family}`,
    )
  }

  const { daemons, silent } = await lab.status()
  t.strictSame(silent, [])
  t.strictSame(daemons.map(({ host, status }) => `${host} ${status.kind}`).toSorted(), [
    'cloud agent',
    'cloud gateway',
    'cloud relay',
    'east1 agent',
    'east1 gateway',
    'west1 agent',
    'west1 gateway',
  ])
  const kubeconfig = (
    await lab.exec('cloud', ['fulmar', 'kubeconfig', '--user', 'admin', '--server', lab.topology.relay.url])
  ).stdout
  const nodes = await lab.exec(
    'east1',
    ['sh', '-c', 'cat > /run/admin.conf; kubectl --kubeconfig /run/admin.conf get nodes -o wide'],
    { input: kubeconfig },
  )
  t.match(nodes.stdout, /east1 +Ready .* 192\.168\.1\.11 /, `the kubelet's report: ${nodes.stderr}`)

  const file = readdirSync(lab.manifests)
    .map((name) => join(lab.manifests, name))
    .find((name) => /kind: Node\n/.test(readFileSync(name, 'utf8')) && /name: east1/.test(readFileSync(name, 'utf8')))!
  const text = readFileSync(file, 'utf8')
  const east1 = async () =>
    (await lab.exec('east1', ['kubectl', '--kubeconfig', '/run/admin.conf', 'get', 'nodes', '--no-headers'])).stdout
  rmSync(file)
  t.ok(await once(async () => !/east1/.test(await east1())), 'a node that was deleted')
  writeFileSync(file, text)
  t.ok(await once(async () => /east1 +Ready/.test(await east1())), 'is reported by its kubelet when it is back')

  for (const daemon of ['relay', 'agent', 'gateway'] as const) {
    const before = lab.pidOf('cloud', daemon)
    const back = new Promise<void>((resolve) => {
      const off = lab.onEvent((event) => event.kind === 'ready' && event.daemon === daemon && (off(), resolve()))
    })
    lab.kill('cloud', daemon)
    await back
    t.not(lab.pidOf('cloud', daemon), before, `${daemon} is back`)
    t.match(readFileSync(lab.logOf('cloud', daemon), 'utf8'), new RegExp(`"daemon":"${daemon}"`), `${daemon} has a log`)
  }
  t.strictSame((await lab.status()).silent, [])
})

t.test('a daemon that does not start is the error, with the end of its log', async (t) => {
  const id = `la${process.pid % 100_000}e`
  const lab = await openLab({ id, pools: ['x'], nodes: 1, until: 'hosts' })
  t.teardown(() => lab.close())
  // Without an identity, as nothing joined.
  await t.rejects(lab.startGateways(), /gateway on (cloud|x1) ended with code \d+; its log ends:\n[^]*fulmar join/)
})
