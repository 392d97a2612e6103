// `fulmar forward` as a person runs it, through a relay and an agent in this process, to an HTTP server that the agent declares.

import { spawn } from 'node:child_process'
import { createHash } from 'node:crypto'
import { once } from 'node:events'
import { writeFile } from 'node:fs/promises'
import { createServer } from 'node:http'
import { connect, type AddressInfo } from 'node:net'
import { join } from 'node:path'
import { createInterface } from 'node:readline'
import t from 'tap'
import { parseForward } from '../../cli/forward.ts'
import { parseUsers } from '../../relay/ops-access.ts'
import { createProxy } from '../../relay/proxy-server.ts'
import { log } from '../relay/mesh.ts'
import { createOps, listen, textOf } from '../relay/ops.ts'
import { until } from '../lib/until.ts'
import { fulmar, MAIN } from './fulmar.ts'

t.setTimeout(120_000)

t.test('what is typed', async (t) => {
  const listen = { address: '127.0.0.1', port: 0 }
  const rows: readonly [words: string, expected: object | RegExp][] = [
    ['edge-7/console', { authority: 'console.edge-7:443', listen }],
    ['edge-7/console 8080', { authority: 'console.edge-7:443', listen: { port: 8080 } }],
    ['edge-7/console 0.0.0.0:80', { listen: { address: '0.0.0.0', port: 80 } }],
    ['edge-7/console [::1]:80', { listen: { address: '::1', port: 80 } }],
    ['edge-7.example/9100', { authority: 'edge-7.example:9100', listen }],
    ['edge-7/192.168.1.20:502', { authority: '192.168.1.20.edge-7:502', listen }],
    ['edge-7/plc.lan:502', { authority: 'plc.lan.edge-7:502', listen }],
    ['', /^NODE\/TARGET: is missing/],
    ['edge-7', /^edge-7: is not NODE\/TARGET/],
    ['/console', /is not NODE\/TARGET/],
    ['edge-7/console/x', /is not NODE\/TARGET/],
    ['edge-7/Con_sole', /^Con_sole: is neither a name, HOST:PORT nor a port/],
    ['edge-7/0', /^0: is neither/],
    ['edge-7/console 70000', /^70000: is not \[ADDRESS:\]PORT/],
    ['edge-7/console x:80', /^x:80: is not/],
    ['edge-7/console 1.2.3:80', /is not \[ADDRESS:\]PORT/],
    ['edge-7/console 8080 8081', /^8081: nothing is expected here/],
  ]
  for (const [words, expected] of rows) t.match(parseForward(words.split(' ').filter(Boolean)), expected, words)
})

t.test('a web console at the edge opens here', async (t) => {
  const { mesh, relay, agent } = await createOps(t, { dialMs: 2_000 })
  const console = createServer((request, response) => response.end(`console of ${request.headers.host}`))
  console.listen(0, '127.0.0.1')
  await once(console, 'listening')
  t.teardown(() => console.close())
  const halfClosing = await listen(
    t,
    (socket) => void socket.once('data', () => socket.once('end', () => socket.end('late'))),
  )
  const edge = await agent('edge-7', 10250, {
    targets: [
      `console=localhost:${(console.address() as AddressInfo).port}`,
      `late=127.0.0.1:${halfClosing.port}`,
      'gone=127.0.0.1:9',
    ],
  })
  const sha256 = createHash('sha256').update('secret').digest('hex')
  const users = parseUsers(`browser ${sha256} edge-* console\njane - edge-7 gone\n`)
  const nodeOf = (host: string): string | undefined => (relay.absence(host) === undefined ? host : undefined)
  const { port } = await mesh.listen({ connect: createProxy({ users: () => users, nodeOf, dial: relay.dial, log }) })
  const file = (name: string): string => join(mesh.stateDir, name)
  const server = `https://127.0.0.1:${port}`
  await writeFile(file('token'), 'secret\n')
  await writeFile(file('wrong'), 'guess\n')
  await writeFile(file('ca.crt'), mesh.authority.certificatePem)
  const kubeconfig = async (user: string, group: string): Promise<string> => {
    const flags = ['--user', user, '--group', group, '--server', server, '--state-dir', mesh.stateDir]
    const { stdout } = await fulmar('kubeconfig', ...flags)
    await writeFile(file(user), stdout)
    return file(user)
  }
  const [admin, jane] = await Promise.all([kubeconfig('admin', 'system:masters'), kubeconfig('jane', 'developers')])
  const byToken = ['--relay', server, '--ca', file('ca.crt'), '--token-file', file('token')]

  const start = async (...argv: string[]): Promise<number> => {
    const child = spawn(process.execPath, [MAIN, 'forward', ...argv], { stdio: ['ignore', 'pipe', 'inherit'] })
    t.teardown(() => child.kill('SIGKILL'))
    const [line] = (await once(createInterface(child.stdout), 'line')) as [string]
    const [, here] = /^Forwarding from 127\.0\.0\.1:(\d+) to edge-7\/\w+; Ctrl-C ends it$/.exec(line) ?? []
    t.ok(here, line)
    return Number(here)
  }
  const [web, late] = await Promise.all([
    start('edge-7/console', ...byToken),
    start('edge-7/late', '--kubeconfig', admin),
  ])
  const bodies = await Promise.all(
    Array.from({ length: 20 }, async () => (await fetch(`http://127.0.0.1:${web}/`)).text()),
  )
  t.same(new Set(bodies), new Set([`console of 127.0.0.1:${web}`]))
  const socket = connect({ host: '127.0.0.1', port: late, allowHalfOpen: true })
  socket.end('question')
  t.equal(await textOf(socket), 'late', 'a half-close passes')

  const rows: readonly [argv: readonly string[], code: number, stderr: RegExp][] = [
    [['edge-7/console', '--kubeconfig', jane], 1, /403 jane may not reach console\.edge-7:443/],
    [['edge-7/gone', '--kubeconfig', jane], 1, /502 edge-7: nothing listens on 127\.0\.0\.1:9/],
    [['edge-7/consle', '--kubeconfig', admin], 1, /403 edge-7: consle:443 is not open .+ \(console, late, gone\)/],
    [['edge-9/console', '--kubeconfig', admin], 1, /503 the relay knows no node console\.edge-9/],
    [
      ['edge-7/console', ...byToken.slice(0, -1), file('wrong')],
      1,
      /does not know who this is: the token is of no user/,
    ],
    [
      ['edge-7/console', '--relay', server, '--token-file', file('token')],
      1,
      /127\.0\.0\.1:\d+: self-signed .*; give its CA by --ca \(ca\.crt/,
    ],
    [['edge-7/console', '--kubeconfig', file('token')], 64, /has no context/],
    [['edge-7/console', '--kubeconfig', '/nowhere'], 64, /--kubeconfig \/nowhere: cannot be read/],
    [['edge-7/console', String(web), '--kubeconfig', admin], 64, /cannot listen on 127\.0\.0\.1:\d+: .*EADDRINUSE/],
    [['edge-7/console', '--kubeconfig', admin, '--relay', 'https://127.0.0.1:9'], 1, /127\.0\.0\.1:9: .*ECONNREFUSED/],
  ]
  await Promise.all(
    rows.map(async ([argv, code, stderr]) => {
      const answer = await fulmar('forward', ...argv)
      t.equal(answer.code, code, argv.join(' '))
      t.match(answer.stderr, stderr)
    }),
  )
  await edge.stop()
  await until(() => relay.absence('edge-7') !== undefined)
  await t.rejects(fetch(`http://127.0.0.1:${web}/`), 'a node that is gone')
})
