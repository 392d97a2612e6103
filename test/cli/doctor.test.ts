import { mkdirSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs'
import { execFile } from 'node:child_process'
import { createSocket } from 'node:dgram'
import { once } from 'node:events'
import { createServer as createHttpServer } from 'node:http'
import { createServer } from 'node:https'
import type { AddressInfo } from 'node:net'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { promisify } from 'node:util'
import t, { type Test } from 'tap'
import { parseSocketAddress } from '../../lib/address.ts'
import { createAuthority, createClient, issueServer, validFor } from '../../lib/certificates.ts'
import type { Diagnosis } from '../../lib/doctor.ts'
import { identityPaths } from '../../lib/net/identity.ts'
import { decodeStun, encodeStun } from '../../lib/wire/stun.ts'
import { createHost, isRoot } from '../lib/netns.ts'
import { fulmar, MAIN } from './fulmar.ts'

const DAY_MS = 86_400_000

const folderOf = (t: Test): string => {
  const folder = mkdtempSync(join(tmpdir(), 'fulmar-'))
  t.teardown(() => rmSync(folder, { recursive: true }))
  return folder
}
const nodeObject = (name: string, pool: string, podCIDR: string): object => ({
  metadata: { name, labels: { 'apps.openyurt.io/nodepool': pool } },
  spec: { podCIDRs: [podCIDR] },
})

/** A relay with an API, a STUN server, and a machine that has joined. */
async function openCloud(
  t: Test,
  {
    names,
    clockMs = 0,
    issuedMs = Date.now(),
  }: { readonly names: readonly string[]; readonly clockMs?: number; readonly issuedMs?: number },
) {
  const authority = await createAuthority('fulmar', validFor(Date.now(), 10))
  const serving = await issueServer(authority, names, validFor(issuedMs, 10))
  const subject = { commonName: 'system:node:h1', organization: 'system:nodes' }
  const own = await createClient(authority, subject, validFor(Date.now(), 90))
  const objects = [nodeObject('h1', 'a', '10.1.0.0/24'), nodeObject('h2', 'b', '10.1.0.0/24')]
  const server = createServer({ cert: serving.certificatePem, key: serving.keyPem }, (request, response) => {
    response.setHeader('date', new Date(Date.now() + clockMs).toUTCString())
    const items = request.url?.startsWith('/api/v1/nodes') === true ? objects : undefined
    if (items === undefined) response.writeHead(404)
    response.end(JSON.stringify({ items: items ?? [], metadata: { resourceVersion: '1' } }))
  }).listen(0, '127.0.0.1')
  const stun = createSocket('udp4', (datagram, from) => {
    const asked = decodeStun(datagram)
    if (asked === undefined) return
    const xorMappedAddress = parseSocketAddress(`198.51.100.7:${from.port}`)!
    stun.send(encodeStun({ ...asked, class: 'success', xorMappedAddress }), from.port, from.address)
  }).bind(0, '127.0.0.1')
  await Promise.all([once(server, 'listening'), once(stun, 'listening')])
  t.teardown(() => {
    server.close()
    server.closeAllConnections()
    stun.close()
  })
  const stateDir = folderOf(t)
  const paths = identityPaths(stateDir)
  mkdirSync(paths.folder)
  writeFileSync(paths.certificate, own.certificatePem)
  writeFileSync(paths.key, own.keyPem)
  writeFileSync(paths.ca, authority.certificatePem)
  const url = `https://127.0.0.1:${(server.address() as AddressInfo).port}`
  const write = (relay: string, servers: readonly string[]): void =>
    writeFileSync(paths.node, JSON.stringify({ node: 'h1', relays: [relay], stun: servers, server: url }))
  return { stateDir, paths, url, authority, stunServer: `127.0.0.1:${stun.address().port}`, write }
}

async function diagnose(stateDir: string, ...argv: readonly string[]): Promise<readonly Diagnosis[]> {
  const runDir = argv.includes('--run-dir') ? [] : ['--run-dir', '/nonexistent']
  const { stdout, stderr } = await fulmar('doctor', '--json', '--state-dir', stateDir, ...runDir, ...argv)
  if (stdout === '') throw new Error(stderr)
  return (JSON.parse(stdout) as { readonly diagnoses: readonly Diagnosis[] }).diagnoses
}
const about = (diagnoses: readonly Diagnosis[], name: RegExp): Partial<Diagnosis> =>
  diagnoses.find((each) => name.test(each.name)) ?? {}

t.test('a node whose cloud is there', async (t) => {
  const { stateDir, url, stunServer, write } = await openCloud(t, { names: ['127.0.0.1'] })
  write(url, [stunServer])
  const found = await diagnose(stateDir)
  t.match(about(found, /^kernel$/), { verdict: 'fine' })
  t.match(about(found, /^relay /), { name: `relay ${url}`, verdict: 'fine', found: /^answers in/ })
  t.match(about(found, /^UDP/), { verdict: 'fine', found: /^seen as 198\.51\.100\.7:/ })
  t.match(about(found, /^clock/), { verdict: 'fine' })
  t.match(about(found, /certificate of this node/), { verdict: 'fine', found: /^system:node:h1, until/ })
  t.match(about(found, /^Kubernetes API/), { verdict: 'fine', found: /2 nodes/ })
  t.match(about(found, /^pod prefixes/), { verdict: 'wrong', found: /10\.1\.0\.0\/24/ }, 'claimed twice')
  t.match(about(found, /^addresses/), { verdict: 'fine' })
})

t.test('what may be wrong between node and cloud', async (t) => {
  const { stateDir, url, write, paths, authority } = await openCloud(t, { names: ['relay.example'], clockMs: -DAY_MS })
  const silent = createSocket('udp4').bind(0, '127.0.0.1')
  await once(silent, 'listening')
  t.teardown(() => silent.close())
  write(url, [`127.0.0.1:${silent.address().port}`])
  const found = await diagnose(stateDir)
  t.match(about(found, /^relay /), { verdict: 'wrong', remedy: /--public/ }, 'the relay has another name')
  t.match(about(found, /^UDP/), { verdict: 'note', found: /no answer from 127\.0\.0\.1/, remedy: /let UDP/ })
  t.match(about(found, /^Kubernetes API/), { verdict: 'wrong' })

  const other = await createAuthority('fulmar', validFor(Date.now(), 10))
  writeFileSync(paths.ca, other.certificatePem)
  write('https://127.0.0.1:9', [])
  const second = await diagnose(stateDir)
  t.match(about(second, /^relay /), { verdict: 'wrong', remedy: /nothing listens/ })
  t.match(about(second, /^UDP/), { verdict: 'note', found: /no STUN server/ })
  t.match(about(second, /certificate of this node/), { verdict: 'wrong', found: /another CA/ })

  writeFileSync(paths.ca, authority.certificatePem)
  write(url, [])
  t.match(about(await diagnose(stateDir, '--server', 'http://127.0.0.1:9'), /^Kubernetes API/), {
    name: 'Kubernetes API http://127.0.0.1:9/',
    verdict: 'wrong',
  })
})

t.test('a relay whose clock differs', async (t) => {
  const { stateDir, url, write } = await openCloud(t, { names: ['127.0.0.1'], clockMs: -DAY_MS })
  write(url, [])
  t.match(about(await diagnose(stateDir), /^clock/), { verdict: 'wrong', found: /ahead of the relay/, remedy: /NTP/ })
})

t.test('a clock by which the certificate of the relay does not count', async (t) => {
  const clockMs = -30 * DAY_MS
  const { stateDir, url, write } = await openCloud(t, { names: ['127.0.0.1'], clockMs, issuedMs: Date.now() + clockMs })
  write(url, [])
  const found = await diagnose(stateDir)
  t.match(about(found, /^relay /), { verdict: 'wrong', found: 'certificate has expired' })
  t.match(about(found, /^clock/), { verdict: 'wrong', found: /ahead of the relay/, remedy: /set the clock/ })
})

t.test('damaged files', async (t) => {
  const { stateDir, url, write, paths, authority } = await openCloud(t, { names: ['127.0.0.1'] })
  write(url, [])
  t.match(about(await diagnose(stateDir), /^state folder/), { name: `state folder ${stateDir}` })
  const rows = [
    [paths.ca, 'garbage', /ca\.crt cannot be read; run fulmar join --force/],
    [paths.key, authority.keyPem, /node\.key is not the key of .*node\.crt; run fulmar join --force/],
    [paths.certificate, '', /node\.crt cannot be read/],
  ] as const
  for (const [path, content, expected] of rows) {
    const good = readFileSync(path)
    writeFileSync(path, content)
    t.match(about(await diagnose(stateDir), /^identity/), { verdict: 'wrong', found: expected })
    writeFileSync(path, good)
  }
})

t.test('daemons', async (t) => {
  const { stateDir, url, write } = await openCloud(t, { names: ['127.0.0.1'] })
  write(url, [])
  t.match(about(await diagnose(stateDir), /^fulmar agent/), { verdict: 'note', found: 'was not started here' })

  const runDir = folderOf(t)
  const metadata = { source: 'cloud', server: url, objects: {} }
  const services = { count: 1, endpoints: 1, path: 'nft', pathReason: 'there is no cgroup2' }
  const status = { kind: 'agent', services, problems: ['Node x: podCIDR y: mend it'], metadata }
  const agent = createHttpServer((_, response) => response.end(JSON.stringify(status))).listen(`${runDir}/agent.sock`)
  t.teardown(() => agent.close())
  await once(agent, 'listening')
  // As a daemon leaves its socket that is killed.
  const script =
    'const s = require("net").createServer().listen(process.argv[1], () => process.kill(process.pid, "SIGKILL"))'
  await promisify(execFile)(process.execPath, ['-e', script, `${runDir}/gateway.sock`]).catch(() => {})
  const found = await diagnose(stateDir, '--run-dir', runDir)
  t.match(about(found, /^fulmar agent/), {
    verdict: 'note',
    found: 'Node x: podCIDR y: mend it',
    remedy: /fulmar status/,
  })
  t.match(about(found, /^fulmar gateway/), {
    verdict: 'wrong',
    found: 'is dead, and left its socket',
    remedy: /its log/,
  })
  t.match(about(found, /^BPF on/), { verdict: 'note', found: 'the agent does not use it: there is no cgroup2' })
})

t.test('routing rules', { skip: !isRoot && 'needs root' }, async (t) => {
  const host = await createHost()
  t.teardown(() => host.close())
  await host.sh('ip rule add pref 100 fwmark 0x40 lookup 9027')
  const rules = async (flags: string): Promise<Partial<Diagnosis>> => {
    const nowhere = '--state-dir /nonexistent --run-dir /nonexistent'
    const command = `${process.execPath} ${MAIN} doctor --json --for agent ${nowhere} ${flags} || true`
    const answer = JSON.parse(await host.sh(command)) as { readonly diagnoses: readonly Diagnosis[] }
    return about(answer.diagnoses, /^routing rules/)
  }
  t.match(await rules(''), {
    verdict: 'note',
    found: /^rule 100 is Raven’s/,
    remedy: /ip rule del pref 100 fwmark 0x40;/,
  })
  t.match(await rules('--rule-preference 90'), { verdict: 'fine', found: 'none before ours' })
})

t.test('a machine that has not joined, for people', async (t) => {
  const { code, stdout } = await fulmar('doctor', '--state-dir', folderOf(t), '--run-dir', '/nonexistent')
  t.equal(code, 1)
  t.match(stdout, /^wrong +[\s\S]*identity: [\s\S]*why: [\s\S]*do: make a token[\s\S]*fine +kernel: [\s\S]* fine\n$/)
  const asked = await fulmar('doctor', '--for', 'agent,gatewai')
  t.equal(asked.code, 64)
  t.match(asked.stderr, /gatewai is none of agent, gateway, relay/)
})
