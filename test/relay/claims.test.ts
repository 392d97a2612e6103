// What a node with a valid certificate claims that is not its own: another node's name, another pool, another prefix. Each is
// refused where it is made, and the log says why. (ServiceAccount tokens: token-review.test.ts.)

import { createPrivateKey, createPublicKey, randomBytes, X509Certificate } from 'node:crypto'
import { mkdtemp, rm, writeFile } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import t from 'tap'
import { signAnnouncement, type Announcement } from '../../gateway/announcement.ts'
import { runAnnouncements } from '../../gateway/announcements-loop.ts'
import { planPeers } from '../../gateway/peers.ts'
import { createRequest } from '../../lib/certificates.ts'
import { createClock } from '../../lib/clock.ts'
import type { Pool } from '../../lib/k8s/pools.ts'
import { LanPeers } from '../../lib/lan.ts'
import { createToken } from '../../lib/net/join-tokens.ts'
import { JOIN_PATH, RENEW_PATH } from '../../lib/wire/join.ts'
import { encodeLan } from '../../lib/wire/lan.ts'
import { encodeSignal, SIGNAL_PATH } from '../../lib/wire/signal.ts'
import { createApi } from '../../relay/api/api-server.ts'
import { createIssuer } from '../../relay/issuer-server.ts'
import { runSignalServer } from '../../relay/signal-server.ts'
import { closeCode, createMesh, log as silent } from './mesh.ts'
import { ask } from './asking.ts'

type Line = Readonly<Record<string, unknown>> & { readonly text: string }
const lines: Line[] = []
const note = (fields: Record<string, unknown>, text: string): void => void lines.push({ ...fields, text })
const log = { ...silent, debug: note, info: note, warn: note, error: note } as unknown as typeof silent

const DAY_MS = 86_400_000
const mesh = await createMesh(t)
const mallory = await mesh.node('mallory')
const malloryKey = createPrivateKey(mallory.keyPem)
const malloryCertificate = new X509Certificate(mallory.certificatePem)
const csrOf = (node: string): Promise<string> => {
  const publicKeyPem = createPublicKey(mallory.keyPem).export({ type: 'spki', format: 'pem' }).toString()
  return createRequest(mallory.keyPem, publicKeyPem, {
    commonName: `system:node:${node}`,
    organization: 'system:nodes',
  })
}

const manifests = await mkdtemp(join(tmpdir(), 'fulmar-claims-'))
t.teardown(() => rm(manifests, { recursive: true }))
const nodeYaml = (name: string, pool: string, prefix: string) =>
  `apiVersion: v1\nkind: Node\nmetadata:\n  name: ${name}\n  labels:\n    apps.openyurt.io/nodepool: ${pool}\n` +
  `spec:\n  podCIDR: ${prefix}\n  podCIDRs: [${prefix}]\n`
await writeFile(join(manifests, 'mallory.yaml'), nodeYaml('mallory', 'den', '10.1.0.0/24'))
await writeFile(join(manifests, 'victim.yaml'), nodeYaml('victim', 'home', '10.2.0.0/24'))

const issuer = createIssuer({
  ...{ stateDir: mesh.stateDir, authority: mesh.authority, relays: [], stun: [] },
  ...{ certificateLifeMs: DAY_MS, renewalGraceMs: DAY_MS, now: Date.now, log },
})
const signals = await runSignalServer(
  { stateDir: mesh.stateDir, relay: 'relay', mayReach: () => true, log },
  mesh.signal,
)
mesh.holds(signals.closed)
const api = createApi({ directory: manifests, stateDir: mesh.stateDir, tokenKey: randomBytes(32), log })
mesh.holds(api.run(mesh.signal))
const { port } = await mesh.listen({ join: issuer.handle, signal: signals.sessions.upgrade, api: api.handle })

type Value = { readonly message?: string; readonly metadata?: object; readonly spec?: object }
const send = async (method: string, path: string, body: object, type = 'application/json') => {
  const caPem = mesh.authority.certificatePem
  const { status, text } = await ask({ port, path, caPem, client: mallory, method, body: JSON.stringify(body), type })
  return { status, value: JSON.parse(text) as Value }
}
const MERGE = 'application/merge-patch+json'

const announcement: Announcement = {
  node: 'mallory',
  sequence: 1,
  wireguardKey: Buffer.alloc(32, 7).toString('base64'),
  candidates: [],
  nat: { mapping: 'unknown', filtering: 'unknown', udp: 'unknown' },
}
const signed = (change: object) => signAnnouncement({ ...announcement, ...change }, malloryCertificate, malloryKey)

/** A gateway of another pool, with what the cluster says. */
function gateway() {
  const life = new AbortController()
  t.teardown(() => life.abort())
  const { authority } = mesh
  return runAnnouncements(
    {
      identity: {
        node: 'own',
        certificatePem: mallory.certificatePem,
        keyPem: mallory.keyPem,
        caPem: authority.certificatePem,
      },
      state: {
        announcements: new Map(),
        nextSequence: async () => 1,
        saveAnnouncement: () => {},
        removeAnnouncement: () => {},
        saveOrder: () => {},
      },
      facts: () => ({ wireguardKey: '', candidates: [], nat: announcement.nat, role: undefined }),
      nodes: () => new Map(),
      clock: createClock(0, () => undefined, Date.now),
      peerGraceMs: DAY_MS,
      onDropped: () => {},
      onLate: () => {},
      onOwn: () => {},
      log,
    },
    life.signal,
  )
}

t.test('another node’s name', async (t) => {
  t.test('by renewing its own certificate', async (t) => {
    const answer = await send('POST', RENEW_PATH, { version: 1, csr: await csrOf('victim') })
    const reason = /certificate is of node mallory, the request for system:node:victim/
    t.match(answer, { status: 403, value: { code: 'FULMAR_CERTIFICATE_OTHER_NODE', message: reason } })
    t.match(lines.at(-1), { node: 'mallory', reason, text: 'renewal refused' })
  })
  t.test('by a join token of its own', async (t) => {
    const secret = await createToken(mesh.stateDir, 'mallory', Date.now() + DAY_MS)
    const answer = await send('POST', JOIN_PATH, { version: 1, secret, csr: await csrOf('victim') })
    const reason = /token is for node mallory, the request for system:node:victim/
    t.match(answer, { status: 403, value: { code: 'FULMAR_TOKEN_OTHER_NODE', message: reason } })
    t.match(lines.at(-1), { node: 'mallory', reason, text: 'join refused' })
  })
  t.test('by announcing it to the relay', async (t) => {
    const socket = await mesh.dial(port, SIGNAL_PATH, mallory)
    const ended = closeCode(socket)
    socket.send(encodeSignal({ kind: 'hello', version: 1, role: 'gateway' }))
    socket.send(encodeSignal({ kind: 'announce', node: 'victim', announcement: signed({ node: 'victim' }) }))
    t.equal(await ended, 1008)
    t.match(
      lines.find(({ text }) => text === 'session broke the protocol'),
      { node: 'mallory', err: { message: 'announces victim, but its certificate is of mallory' } },
    )
  })
  t.test('by announcing it to a gateway, past a relay that would help', async (t) => {
    const { receive, peers } = gateway()
    t.notOk(receive('victim', signed({ node: 'victim' })))
    t.match(lines.at(-1), { peer: 'victim', err: { message: /names node victim, its certificate does not/ } })
    t.notOk(receive('victim', signed({})), 'nor its own, as the victim’s')
    t.equal(peers.size, 0)
  })
  t.test('by writing its objects', async (t) => {
    const rows = [
      ['PATCH', '/api/v1/nodes/victim/status', { status: { conditions: [] } }, MERGE],
      ['PUT', '/apis/coordination.k8s.io/v1/namespaces/kube-node-lease/leases/victim', {}, 'application/json'],
      ['DELETE', '/api/v1/nodes/victim', {}, 'application/json'],
    ] as const
    for (const [method, path, body, type] of rows) {
      const answer = await send(method, path, body, type)
      const reason = /victim.* is forbidden: User "system:node:mallory" cannot/
      t.match(answer, { status: 403, value: { message: reason } }, path)
      t.match(lines.at(-1), { node: 'mallory', reason, text: 'write refused' })
    }
  })
})

t.test('another pool', async (t) => {
  t.test('by its own labels', async (t) => {
    const labels = { 'apps.openyurt.io/nodepool': 'home' }
    const answer = await send('PATCH', '/api/v1/nodes/mallory', { metadata: { labels } }, MERGE)
    const reason = /nodes "mallory" is forbidden: User "system:node:mallory" cannot patch/
    t.match(answer, { status: 403, value: { message: reason } })
    t.match(lines.at(-1), { node: 'mallory', reason, text: 'write refused' })
    const status = await send('PATCH', '/api/v1/nodes/mallory/status', { metadata: { labels }, status: {} }, MERGE)
    t.match(status.value.metadata, { labels: { 'apps.openyurt.io/nodepool': 'den' } }, 'nor beside its status')
  })
  t.test('by speaking on its LAN as one of its gateways', async (t) => {
    const told: unknown[] = []
    const ca = new X509Certificate(mesh.authority.certificatePem)
    const peers = new LanPeers(ca, (node, { kind, pool }) => void told.push([node, kind, pool]))
    const heartbeat = {
      ...({ kind: 'heartbeat', term: 99, role: 'active', priority: 0, pool: 'home', follows: 'mallory' } as const),
      ...{ leaving: false, handedOver: false },
    }
    const say = (sequence: number) =>
      encodeLan(heartbeat, { boot: 1, sequence }, { certificate: malloryCertificate, key: malloryKey }).whole
    const isMember = (node: string) => node === 'victim'
    t.equal(peers.receive(say(1), isMember, 0), undefined)
    t.same(told, [['mallory', 'heartbeat', 'home']])
    t.equal(peers.receive(say(2), isMember, 100), undefined)
    t.equal(told.length, 1, 'which is told now and then')
    t.equal(peers.receive(say(3), isMember, 60_001), undefined)
    t.equal(told.length, 2)
    const forged = say(4)
    forged[forged.length - malloryCertificate.raw.length - 3]! ^= 1
    t.equal(peers.receive(forged, isMember, 200_000), undefined)
    t.equal(told.length, 2, 'and not of one that did not say it')
  })
})

t.test('another prefix', async (t) => {
  t.test('by its own object', async (t) => {
    const spec = { podCIDRs: ['10.2.0.0/24'] }
    const answer = await send('PATCH', '/api/v1/nodes/mallory', { spec }, MERGE)
    const reason = /nodes "mallory" is forbidden/
    t.match(answer, { status: 403, value: { message: reason } })
    t.match(lines.at(-1), { node: 'mallory', reason, text: 'write refused' })
    const status = await send('PATCH', '/api/v1/nodes/mallory/status', { spec, status: {} }, MERGE)
    t.match(status.value.spec, { podCIDRs: ['10.1.0.0/24'] }, 'nor beside its status')
  })
  t.test('by announcing it', async (t) => {
    const { receive, peers } = gateway()
    t.ok(receive('mallory', signed({ cidrs: ['10.2.0.0/24'], allowedIps: ['0.0.0.0/0'], pool: 'home' })))
    const node = (name: string, podCidr: string) => ({ name, addresses: [], podCidrs: [podCidr] })
    const pools: readonly Pool[] = [
      { name: 'den', nodes: [node('mallory', '10.1.0.0/24')], gateways: ['mallory'] },
      { name: 'home', nodes: [node('victim', '10.2.0.0/24')], gateways: ['victim'] },
      { name: 'own', nodes: [node('own', '10.3.0.0/24')], gateways: ['own'] },
    ]
    const plan = planPeers('own', pools, peers, { active: true, activeOf: () => undefined })!
    t.match(plan.peers, [{ pool: 'den', node: 'mallory', cidrs: ['10.1.0.0/24'] }], 'what is not asked is not heard')
    t.notOk(plan.peers[0]!.allowedIps.some((prefix) => prefix.startsWith('10.2.') || prefix === '0.0.0.0/0'))
    t.match(plan.waiting, [{ pool: 'home', node: 'victim' }])
  })
})
