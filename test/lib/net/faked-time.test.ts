// A node whose clock starts in 1970, before a relay that knows the time: TLS, OpenSSL and all, at a faked time.

import { spawn } from 'node:child_process'
import { once } from 'node:events'
import { globSync, readFileSync } from 'node:fs'
import { mkdtemp, rm } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { createInterface } from 'node:readline'
import t from 'tap'
import { createLog } from '../../../lib/log.ts'
import { enrol } from '../../../lib/net/enrolment.ts'
import { followIdentity } from '../../../lib/net/identity-loop.ts'
import { identityPaths } from '../../../lib/net/identity.ts'
import { createToken } from '../../../lib/net/join-tokens.ts'
import { createIssuer } from '../../../relay/issuer-server.ts'
import { runSessions } from '../../../relay/websocket-server.ts'
import { createMesh, echoIdentity } from '../../relay/mesh.ts'

const [LIBRARY] = globSync('/usr/lib/*/faketime/libfaketime.so.1')
const DAY_MS = 86_400_000
const log = createLog('test', 'silent')
type Event = { readonly event: string; readonly at: string; readonly isBehind?: boolean; readonly answer?: object }

t.test(
  '1970',
  { skip: LIBRARY === undefined && 'libfaketime is not installed (Debian package faketime)' },
  async (t) => {
    const mesh = await createMesh(t)
    const issuer = createIssuer({
      ...{ stateDir: mesh.stateDir, authority: mesh.authority, relays: [], stun: [] },
      ...{ certificateLifeMs: 90 * DAY_MS, renewalGraceMs: DAY_MS, now: Date.now, log },
    })
    const sessions = runSessions(
      { kind: 'signal', maxPayloadBytes: 1024, log },
      { open: () => undefined, message: () => undefined, close: () => undefined },
      mesh.signal,
    )
    mesh.holds(sessions.closed)
    const { port } = await mesh.listen({ join: issuer.handle, signal: sessions.upgrade, api: echoIdentity })
    const stateDir = await mkdtemp(join(tmpdir(), 'fulmar-1970-'))
    t.teardown(() => rm(stateDir, { recursive: true }))
    const secret = await createToken(mesh.stateDir, 'h1', Date.now() + DAY_MS)
    const relay = new URL(`https://127.0.0.1:${port}`)
    await enrol(stateDir, 'h1', { relay, caPem: mesh.authority.certificatePem, credential: { secret } })
    const floor = () => Date.parse(readFileSync(identityPaths(stateDir).clock, 'utf8').trim())

    // A first life, at the right time, leaves the floor on disk.
    const life = new AbortController()
    const first = await followIdentity({ stateDir, daemon: 'agent', log }, life.signal)
    life.abort()
    await first.done
    const before = first.certificatePem

    const child = spawn(process.execPath, [join(import.meta.dirname, 'faked-node.ts'), stateDir], {
      stdio: ['ignore', 'pipe', 'inherit'],
      env: {
        ...process.env,
        LD_PRELOAD: LIBRARY,
        FAKETIME: '@1970-01-01 00:00:30',
        FAKETIME_DONT_FAKE_MONOTONIC: '1',
      },
    })
    t.teardown(async () => {
      child.kill('SIGKILL')
      if (child.exitCode === null && child.signalCode === null) await once(child, 'exit')
    })
    const seen = new Map<string, Event>()
    for await (const line of createInterface({ input: child.stdout })) {
      const event = JSON.parse(line) as Event
      seen.set(event.event, event)
      if (['starts', 'session', 'api', 'identity'].every((name) => seen.has(name))) break
    }
    t.match(seen.get('starts'), { at: /^1970-01-01T00:00/, isBehind: true }, 'it knows that its clock is wrong')
    t.match(seen.get('session'), { at: /^1970/ }, 'it has its session with the relay')
    t.match(seen.get('api'), { at: /^1970/, answer: { kind: 'node', node: 'h1' } }, 'and the API')
    t.match(seen.get('identity'), { isBehind: true }, 'and asked for a certificate, which tells the time')
    t.not(readFileSync(identityPaths(stateDir).certificate, 'utf8'), before)
    t.ok(Math.abs(floor() - Date.now()) < 60_000, 'to which the floor is raised')
  },
)
