// The lab's commands as people type them, and what is left after any end.

import { execFileSync, spawn } from 'node:child_process'
import { once } from 'node:events'
import { mkdtempSync, rmSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import t from 'tap'
import { ownerOf } from './state.ts'
import { takeDown } from './teardown.ts'
import { tracesOf } from './traces.ts'

t.setTimeout(120_000)
const PREFIX = `lc${process.pid % 100_000}`
const MAIN = join(import.meta.dirname, 'main.ts')

const main = (...args: string[]) => spawn(process.execPath, [MAIN, ...args], { stdio: ['ignore', 'pipe', 'pipe'] })
async function run(...args: string[]): Promise<{ code: number | null; stdout: string; stderr: string }> {
  const child = main(...args)
  const output = { stdout: '', stderr: '' }
  child.stdout.on('data', (text: Buffer) => (output.stdout += text))
  child.stderr.on('data', (text: Buffer) => (output.stderr += text))
  const [code] = (await once(child, 'close')) as [number | null]
  return { code, ...output }
}

t.test('the commands, and death by kill -9', async (t) => {
  const id = `${PREFIX}c`
  t.teardown(() => takeDown(id))
  const manifests = mkdtempSync(join(tmpdir(), 'fulmar-lab-'))
  t.teardown(() => rmSync(manifests, { recursive: true }))
  writeFileSync(
    join(manifests, 'node.yaml'),
    'apiVersion: v1\nkind: Node\nmetadata: { name: edge1.example, labels: { apps.openyurt.io/nodepool: edge } }\nspec: { podCIDRs: [10.244.9.0/24] }\n---\nkind: [\n',
  )
  const first = await run('up', '--id', id, '--no-daemons', '--manifests', manifests, '--detach', '--json')
  t.equal(first.code, 0, first.stderr)
  t.match(
    JSON.parse(first.stdout),
    { id, nodes: [{ name: 'edge1.example', pool: 'edge' }], problems: [/node\.yaml:\d+: /] },
    'a broken document is named, the rest is there',
  )
  t.match(first.stderr, /\[ +\d+\.\d\d s\] .* hosts/, 'progress')
  const again = await run('up', '--id', id, '--no-daemons')
  t.equal(again.code, 64)
  t.match(again.stderr, new RegExp(`--id ${id}: this lab is up .*down --id ${id}`), 'a living lab is not built over')
  t.match(await run('exec', '--id', id, 'edge1.example', '--', 'sh', '-c', 'hostname -I; exit 7'), {
    code: 7,
    stdout: /192\.168\.1\.11 /,
  })
  t.match(await run('exec', '--id', id, 'edge2', '--', 'true'), {
    code: 64,
    stderr: /host edge2: there is none; the hosts are core/,
  })
  t.match(await run('exec', '--id', id, 'edge1.example', 'ls', '--all'), {
    code: 64,
    stderr: /--all: no such flag; see --help\n.*write exec HOST -- COMMAND…, with the two dashes/,
  })
  t.equal((await run('cut', '--id', id, 'wan', 'edge')).code, 0)
  t.match(JSON.parse((await run('status', '--id', id, '--json')).stdout), {
    id,
    state: 'running',
    cuts: { edge: ['wan'] },
  })
  t.equal((await run('heal', '--id', id, 'all')).code, 0)

  process.kill(ownerOf(id)!.pid, 'SIGKILL')
  const rubble = await run('up', '--id', id, '--no-daemons', '--pools', 'x', '--nodes', '1', '--detach')
  t.equal(rubble.code, 0, `over the rubble: ${rubble.stderr}`)
  process.kill(ownerOf(id)!.pid, 'SIGKILL')
  t.match(await run('status', '--id', id), {
    code: 1,
    stdout: new RegExp(`^lab ${id}: abandoned, its supervisor is dead: npm run lab -- down --id ${id} removes`),
  })
  t.equal((await run('down', '--id', id)).code, 0)
  t.strictSame(tracesOf(id), [], 'nothing is left')
  t.match(await run('down', '--id', id), {
    code: 1,
    stderr: new RegExp(`--id ${id}: no such lab; there (is none|are .*)\n`),
  })
  t.match(await run('status', '--id', id), { code: 64, stderr: /no such lab/ })

  const building = main('up', '--id', id, '--no-daemons')
  await once(building.stderr, 'data')
  building.kill('SIGKILL')
  await once(building, 'close')
  t.not(tracesOf(id).length, 0, 'half-built')
  t.equal((await run('down', '--id', id)).code, 0)
  t.strictSame(tracesOf(id), [], 'nothing is left of that either')

  const interrupted = main('up', '--id', id, '--no-daemons')
  await once(interrupted.stderr, 'data')
  interrupted.kill('SIGINT')
  await once(interrupted, 'close')
  t.equal(interrupted.exitCode, 0)
  t.strictSame(tracesOf(id), [], 'Ctrl-C leaves nothing')
})

t.test('mistakes are named with their remedy', async (t) => {
  const rows = [
    { args: ['up', '--pools', 'a,a'], message: /--pools "a,a": pool a is there twice/ },
    { args: ['up', '--pools', 'A_b'], message: /--pools "A_b": "A_b" is no pool name/ },
    { args: ['up', '--pools', 'cloud'], message: /cloud is always there/ },
    { args: ['up', '--nat', 'a=cone'], message: /--nat "a=cone": "cone" is no NAT type: full-cone, restricted/ },
    { args: ['up', '--nat', 'a'], message: /is not POOL=TYPE/ },
    {
      args: ['up', '--nodes', 'two', '--underlay', 'v5', '--pool', 'x'],
      message: /--pool: no such flag[^]*--nodes "two"[^]*--underlay "v5"/,
    },
    { args: ['up', '--nodes', '2'], message: /--nodes: counts the nodes of --pools/ },
    { args: ['up', '--manifests', '/nowhere'], message: /--manifests \/nowhere: there is no such folder/ },
    { args: ['up', '--id', 'a-b'], message: /--id "a-b": is no lab id/ },
    {
      args: ['up', '--id', `${PREFIX}m`, '--no-daemons', '--nat', 'nowhere=none'],
      message: /--nat nowhere: no site of this name; the sites are/,
    },
    { args: ['down', 'lab'], message: /name a lab with --id lab/ },
    { args: ['up', '--pools', 'a', '--nodes', '0'], message: /--nodes "0": is not a whole number from 1 to/ },
    { args: ['dwon'], message: /dwon: no such command, is it down\?/ },
    { args: ['exec', '--id', 'nosuch', 'h1', '--', 'true'], message: /--id nosuch: no such lab/ },
  ]
  for (const { args, message } of rows) {
    const { code, stderr } = await run(...args)
    t.equal(code, 64, args.join(' '))
    t.match(stderr, message)
    t.notMatch(stderr, /\n +at /, 'without a stack')
  }
  t.strictSame(tracesOf(`${PREFIX}m`), [], 'a refused start leaves nothing')
  // Root's capabilities cannot be dropped by this test itself.
  const script = execFileSync('sh', [
    '-c',
    `setpriv --reuid 65534 --regid 65534 --clear-groups ${process.execPath} ${MAIN} up --id ${PREFIX}m 2>&1 || true`,
  ])
  t.match(script.toString(), /root/, 'not being root')
})
