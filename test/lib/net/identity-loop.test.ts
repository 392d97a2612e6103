// Two daemons of a node share its identity folder, against a real issuer: one renews, both go on with the new certificate,
// and a session is replaced without a moment in which there is none.

import { createPrivateKey, X509Certificate } from 'node:crypto'
import { copyFile, mkdtemp, readFile, rename, rm, writeFile } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import t, { type Test } from 'tap'
import { createClient, spkiHash, validFor } from '../../../lib/certificates.ts'
import { createLog } from '../../../lib/log.ts'
import { enrol, renew } from '../../../lib/net/enrolment.ts'
import { followIdentity } from '../../../lib/net/identity-loop.ts'
import { identityPaths, loadIdentity } from '../../../lib/net/identity.ts'
import { findAuthority } from '../../../lib/net/issuer-client.ts'
import { createToken } from '../../../lib/net/join-tokens.ts'
import { openRelaySession } from '../../../lib/net/relay-session.ts'
import { SIGNAL_PATH } from '../../../lib/wire/signal.ts'
import { createIssuer } from '../../../relay/issuer-server.ts'
import { runSessions } from '../../../relay/websocket-server.ts'
import { createMesh } from '../../relay/mesh.ts'
import { until } from '../until.ts'

const log = createLog('test', 'silent')
const DAY_MS = 86_400_000

/** A relay that issues, and a node that joined it. */
async function start(t: Test, certificateLifeMs: number) {
  const stateDir = await mkdtemp(join(tmpdir(), 'fulmar-node-'))
  t.teardown(() => rm(stateDir, { recursive: true }))
  const mesh = await createMesh(t)
  const now = Date.now
  const issuer = createIssuer({
    ...{ stateDir: mesh.stateDir, authority: mesh.authority, certificateLifeMs, renewalGraceMs: DAY_MS },
    ...{ relays: [], stun: [], now, log },
  })
  let renewals = 0
  const events: string[] = []
  const sessions = runSessions(
    { kind: 'signal', maxPayloadBytes: 1024, log },
    {
      open: () => void events.push('open'),
      message: (session) => session.socket.send('here'),
      close: (_session, replaced) => void events.push(replaced ? 'replaced' : 'closed'),
    },
    mesh.signal,
  )
  mesh.holds(sessions.closed)
  const { port } = await mesh.listen({
    signal: sessions.upgrade,
    join: (request, response) => {
      if (request.url?.includes('renew')) renewals++
      issuer.handle(request, response)
    },
  })
  const relay = new URL(`https://127.0.0.1:${port}`)
  const caHash = spkiHash(new X509Certificate(mesh.authority.certificatePem))
  const secret = await createToken(mesh.stateDir, 'h1', Date.now() + DAY_MS)
  const caPem = await findAuthority(relay, caHash)
  await enrol(stateDir, 'h1', { relay, caPem, credential: { secret } })
  return { mesh, stateDir, relay, events, renewals: () => renewals }
}

const isWhole = async (stateDir: string): Promise<boolean> => {
  const { certificatePem, keyPem } = await loadIdentity(stateDir)
  return new X509Certificate(certificatePem).checkPrivateKey(createPrivateKey(keyPem))
}

t.test('agent and gateway go on with the certificate that one of them got', async (t) => {
  const { stateDir, events, renewals } = await start(t, 24_000)
  const life = new AbortController()
  const agent = await followIdentity({ stateDir, daemon: 'agent', log }, life.signal)
  const gateway = await followIdentity({ stateDir, daemon: 'gateway', log }, life.signal)
  const opened: string[] = []
  const heard: string[] = []
  const session = openRelaySession(
    {
      identity: gateway,
      path: SIGNAL_PATH,
      maxPayloadBytes: 1024,
      log,
      onOpen: (socket) => {
        opened.push(gateway.certificatePem)
        socket.send('hello')
      },
      onMessage: (data) => void heard.push((data as Buffer).toString()),
      onChange: () => undefined,
    },
    life.signal,
  )
  t.teardown(async () => {
    life.abort()
    await Promise.all([session.closed, agent.done, gateway.done])
  })
  const first = agent.certificatePem
  const without: string[] = []
  await until(() => session.socket() !== undefined)
  const watching = setInterval(() => session.socket() ?? without.push('none'), 1)
  t.teardown(() => clearInterval(watching))

  await until(() => agent.certificatePem !== first && gateway.certificatePem === agent.certificatePem)
  t.not(agent.keyPem, '', 'with a new key')
  t.ok(new X509Certificate(agent.certificatePem).checkPrivateKey(createPrivateKey(agent.keyPem)))
  t.ok(await isWhole(stateDir))
  t.equal(renewals(), 1, 'asked for once')
  await until(() => opened.length === 2 && heard.length === 2 && events.includes('replaced'))
  t.same(events, ['open', 'open', 'replaced'], 'the next session is there before the last one goes')
  t.same(without, [], 'at no time is there none')
})

t.test('at any step of a renewal the disk holds a whole identity', async (t) => {
  const { stateDir, relay } = await start(t, DAY_MS)
  const paths = identityPaths(stateDir)
  const before = await loadIdentity(stateDir)

  await writeFile(paths.pendingKey, 'PRIVATE', { mode: 0o600 })
  t.same(await loadIdentity(stateDir), before, 'a key that was being written')
  await rm(paths.pendingKey)

  await copyFile(paths.key, join(stateDir, 'old.key'))
  const after = await renew(stateDir, before, relay)
  t.same(await loadIdentity(stateDir), after)
  t.not(after.keyPem, before.keyPem)

  await rename(paths.key, paths.pendingKey)
  await copyFile(join(stateDir, 'old.key'), paths.key)
  t.same(await loadIdentity(stateDir), after, 'died between the certificate and the key')
  const next = await renew(stateDir, after, relay)
  t.same(await loadIdentity(stateDir), next, 'and the next renewal goes on from there')
  t.equal(await readFile(paths.key, 'utf8'), next.keyPem)
})

t.test('both daemons at a time, and answers that are lost', async (t) => {
  const { stateDir, relay } = await start(t, DAY_MS)
  for (let round = 0; round < 5; round++) {
    const before = await loadIdentity(stateDir)
    const done = await Promise.allSettled([renew(stateDir, before, relay), renew(stateDir, before, relay)])
    t.ok(done.some(({ status }) => status === 'fulfilled'))
    t.ok(await isWhole(stateDir), `round ${round}`)
  }
  const before = await loadIdentity(stateDir)
  await t.rejects(renew(stateDir, before, new URL('https://127.0.0.1:1')), { message: /cannot reach the relay/ })
  t.same(await loadIdentity(stateDir), before, 'nothing changed')
  t.not((await renew(stateDir, before, relay)).certificatePem, before.certificatePem, 'the next attempt succeeds')
})

t.test('an expired certificate is renewed at once, and a person’s join is taken up', async (t) => {
  const { mesh, stateDir } = await start(t, DAY_MS)
  const paths = identityPaths(stateDir)
  const subject = { commonName: 'system:node:h1', organization: 'system:nodes' }
  const expired = await createClient(mesh.authority, subject, validFor(Date.now() - 1.5 * DAY_MS, 1))
  await writeFile(paths.key, expired.keyPem)
  await writeFile(paths.certificate, expired.certificatePem)
  const life = new AbortController()
  const identity = await followIdentity({ stateDir, daemon: 'agent', log }, life.signal)
  t.teardown(async () => {
    life.abort()
    await identity.done
  })
  await until(() => identity.certificatePem !== expired.certificatePem)
  t.ok(new X509Certificate(identity.certificatePem).validToDate.getTime() > Date.now() + DAY_MS / 2)
})

t.test('what is damaged on disk does not replace what works', async (t) => {
  const { mesh, stateDir } = await start(t, 24_000)
  const paths = identityPaths(stateDir)
  const life = new AbortController()
  const warned: string[] = []
  const watched = Object.assign(Object.create(log) as typeof log, {
    warn: (_: object, message: string) => void warned.push(message),
  })
  const identity = await followIdentity({ stateDir, daemon: 'gateway', log: watched }, life.signal)
  t.teardown(async () => {
    life.abort()
    await identity.done
  })
  await writeFile(paths.ca, '')
  await until(() => warned.includes('the identity on disk cannot be read; going on with the one before'))
  t.equal(identity.caPem, mesh.authority.certificatePem)
})
