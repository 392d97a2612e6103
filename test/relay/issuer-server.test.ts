import { createPrivateKey, createPublicKey, generateKeyPairSync, X509Certificate } from 'node:crypto'
import t from 'tap'
import { createClient, createRequest, issueServer, validFor, type KeyPair } from '../../lib/certificates.ts'
import { Members, NOTHING_KEPT } from '../../lib/members.ts'
import { createToken } from '../../lib/net/join-tokens.ts'
import { JOIN_PATH, RENEW_PATH, type JoinAnswer, type JoinRefusal } from '../../lib/wire/join.ts'
import { createIssuer } from '../../relay/issuer-server.ts'
import type { PrefixLimit } from '../../relay/prefix-limit.ts'
import { anotherAuthority, createMesh, log, nodeOf } from './mesh.ts'
import { ask } from './asking.ts'

const newKey = (): string =>
  generateKeyPairSync('ec', {
    namedCurve: 'P-256',
    publicKeyEncoding: { type: 'spki', format: 'pem' },
    privateKeyEncoding: { type: 'pkcs8', format: 'pem' },
  }).privateKey
const csrOf = (
  keyPem: string,
  commonName: string,
  organization: string | undefined = 'system:nodes',
): Promise<string> =>
  createRequest(keyPem, createPublicKey(keyPem).export({ type: 'spki', format: 'pem' }).toString(), {
    commonName,
    organization,
  })

const HOUR_MS = 3600_000
const DAY_MS = 24 * HOUR_MS
const [LIFE_DAYS, GRACE_DAYS] = [90, 30]

async function start(t: { teardown(fn: () => unknown): unknown }, limit?: PrefixLimit) {
  const mesh = await createMesh(t)
  let nowMs = Date.now()
  const told = { relays: ['https://192.0.2.1:443'], stun: ['192.0.2.1:3478'] }
  const members = new Members(NOTHING_KEPT, true)
  const issuer = createIssuer({
    stateDir: mesh.stateDir,
    authority: mesh.authority,
    ...told,
    certificateLifeMs: LIFE_DAYS * DAY_MS,
    renewalGraceMs: GRACE_DAYS * DAY_MS,
    ...(limit && { limit }),
    members,
    now: () => nowMs,
    log,
  })
  const { port } = await mesh.listen({ join: issuer.handle })
  const post = async (body: string, method = 'POST', path = JOIN_PATH, client?: KeyPair) => {
    const { status, text } = await ask({ port, path, caPem: mesh.authority.certificatePem, client, method, body })
    return { status, value: JSON.parse(text) as JoinAnswer & JoinRefusal }
  }
  return {
    mesh,
    members,
    told,
    post,
    join: (secret: string, csr: string) => post(JSON.stringify({ version: 1, secret, csr })),
    renew: (csr: string, client?: KeyPair) => post(JSON.stringify({ version: 1, csr }), 'POST', RENEW_PATH, client),
    token: (node: string) => createToken(mesh.stateDir, node, nowMs + HOUR_MS),
    pass: (ms: number) => void (nowMs += ms),
    now: () => nowMs,
  }
}

t.test('a token becomes a certificate of its node', async (t) => {
  const { mesh, told, join, token, now } = await start(t)
  const key = newKey()
  const { status, value } = await join(await token('h1'), await csrOf(key, 'system:node:h1'))
  t.equal(status, 200)
  t.match(value, { version: 1, node: 'h1', ca: mesh.authority.certificatePem, ...told })
  const certificate = new X509Certificate(value.certificate)
  t.equal(certificate.subject, 'O=system:nodes\nCN=system:node:h1')
  t.ok(certificate.checkPrivateKey(createPrivateKey(key)))
  t.ok(certificate.verify(new X509Certificate(mesh.authority.certificatePem).publicKey))
  t.same(certificate.keyUsage, ['1.3.6.1.5.5.7.3.2'], 'for clients')
  const days = (certificate.validToDate.getTime() - now()) / DAY_MS
  t.ok(days > LIFE_DAYS - 1 && days < LIFE_DAYS + 1, `${days} days`)
  t.ok(certificate.validFromDate.getTime() <= now() - 5 * 60_000 + 1000, 'back-dated')
})

t.test('a token is good once, and for its key again', async (t) => {
  const { join, token, pass } = await start(t)
  const [secret, key] = [await token('h1'), newKey()]
  const first = await join(secret, await csrOf(key, 'system:node:h1'))
  const again = await join(secret, await csrOf(key, 'system:node:h1'))
  t.equal(again.value.certificate, first.value.certificate, 'the same key gets the same answer')
  const other = await join(secret, await csrOf(newKey(), 'system:node:h1'))
  t.match(other, {
    status: 403,
    value: { code: 'FULMAR_TOKEN_USED', message: /used before.*fulmar token create --node h1/ },
  })
  t.equal((await join(secret, await csrOf(key, 'system:node:h1'))).status, 200, 'nor does the attempt spoil it')
  pass(HOUR_MS)
  t.match(await join(secret, await csrOf(key, 'system:node:h1')), {
    status: 403,
    value: { code: 'FULMAR_TOKEN_EXPIRED' },
  })
})

t.test('of many keys that try one token at a time, one wins', async (t) => {
  const { join, token } = await start(t)
  const secret = await token('h1')
  const requests = await Promise.all(Array.from({ length: 12 }, () => csrOf(newKey(), 'system:node:h1')))
  const answers = await Promise.all(requests.map((csr) => join(secret, csr)))
  t.equal(answers.filter(({ status }) => status === 200).length, 1)
  t.equal(answers.filter(({ value }) => value.code === 'FULMAR_TOKEN_USED').length, 11)
})

t.test('who tries without end is put off', async (t) => {
  const { join, post, token } = await start(t, { perSecond: 0.001, burst: 3 })
  const secret = await token('h1')
  for (let i = 0; i < 3; i++) t.match(await post('{}'), { status: 400, value: { code: 'FULMAR_JOIN_MALFORMED' } })
  const good = await join(secret, await csrOf(newKey(), 'system:node:h1'))
  t.match(good, { status: 503, value: { code: 'FULMAR_JOIN_BUSY' } })
})

t.test('what is refused, and why', async (t) => {
  const { join, post, token, pass } = await start(t)
  const old = await token('old')
  pass(HOUR_MS)
  const secret = await token('h1')
  const good = await csrOf(newKey(), 'system:node:h1')
  const flipped = (() => {
    const der = Buffer.from(good.replaceAll(/-----[^-]+-----/g, ''), 'base64')
    der[der.length - 5]! ^= 1
    return `-----BEGIN CERTIFICATE REQUEST-----\n${der.toString('base64')}\n-----END CERTIFICATE REQUEST-----\n`
  })()
  const rows: readonly [name: string, secret: string, csr: string, status: number, code: string][] = [
    ['another node', secret, await csrOf(newKey(), 'system:node:h2'), 403, 'FULMAR_TOKEN_OTHER_NODE'],
    ['no node', secret, await csrOf(newKey(), 'h1'), 403, 'FULMAR_TOKEN_OTHER_NODE'],
    ['masters', secret, await csrOf(newKey(), 'system:node:h1', 'system:masters'), 403, 'FULMAR_TOKEN_OTHER_NODE'],
    ['expired', old, await csrOf(newKey(), 'system:node:old'), 403, 'FULMAR_TOKEN_EXPIRED'],
    ['unknown', 'A'.repeat(32), good, 403, 'FULMAR_TOKEN_UNKNOWN'],
    ['a path for a secret', '../../../../../../etc/passwd____', good, 400, 'FULMAR_JOIN_MALFORMED'],
    ['no request', secret, 'x', 400, 'FULMAR_JOIN_MALFORMED'],
    ['a request that its key did not sign', secret, flipped, 400, 'FULMAR_JOIN_MALFORMED'],
  ]
  for (const [name, usedSecret, csr, status, code] of rows)
    t.match(await join(usedSecret, csr), { status, value: { code } }, name)
  t.match(await post('x'.repeat(10 << 20)), { status: 400 }, 'too long')
  t.match(await post('', 'GET'), { status: 400, value: { message: /POST/ } })
  t.equal((await join(secret, good)).status, 200, 'none of this used the token up')
})

t.test('a certificate becomes the next one, with a new key', async (t) => {
  const { mesh, told, renew, now } = await start(t)
  const key = newKey()
  const present = await mesh.node('h1', validFor(now() - 60 * DAY_MS, LIFE_DAYS))
  const { status, value } = await renew(await csrOf(key, 'system:node:h1'), present)
  t.equal(status, 200)
  t.match(value, { version: 1, node: 'h1', ca: mesh.authority.certificatePem, ...told })
  const certificate = new X509Certificate(value.certificate)
  t.equal(certificate.subject, 'O=system:nodes\nCN=system:node:h1')
  t.ok(certificate.checkPrivateKey(createPrivateKey(key)))
  t.ok(certificate.validToDate.getTime() > now() + (LIFE_DAYS - 1) * DAY_MS)
  const next = { certificatePem: value.certificate, keyPem: key }
  t.equal((await renew(await csrOf(newKey(), 'system:node:h1'), next)).status, 200, 'and that one the one after')
})

t.test('renewals: what is refused, and why', async (t) => {
  const { mesh, renew, now } = await start(t)
  const { authority } = mesh
  const csr = await csrOf(newKey(), 'system:node:h1')
  const endedDaysAgo = (days: number) => validFor(now() - (LIFE_DAYS + days) * DAY_MS, LIFE_DAYS)
  const client = (commonName: string, organization: string | undefined) =>
    createClient(authority, { commonName, organization }, validFor(now(), 1))
  const foreign = await anotherAuthority()
  const asServer = { commonName: 'system:node:h1', organization: 'system:nodes' }
  type Row = readonly [
    name: string,
    client: KeyPair | undefined,
    csr: string,
    status: number,
    code: string,
    reason: RegExp,
  ]
  const rows: readonly Row[] = [
    ['in its grace', await mesh.node('h1', endedDaysAgo(GRACE_DAYS - 1)), csr, 200, '', /./],
    [
      'after its grace',
      await mesh.node('h1', endedDaysAgo(GRACE_DAYS + 1)),
      csr,
      403,
      'FULMAR_CERTIFICATE_EXPIRED',
      /h1 expired at .*30 days after.*fulmar join --force/,
    ],
    ['no certificate', undefined, csr, 401, 'FULMAR_CERTIFICATE_UNKNOWN', /no client certificate/],
    [
      'of another relay',
      await nodeOf(foreign, 'h1', validFor(now(), 1)),
      csr,
      401,
      'FULMAR_CERTIFICATE_UNKNOWN',
      /another relay/,
    ],
    [
      'of another relay, and expired, which is what OpenSSL says of it',
      await nodeOf(foreign, 'h1', endedDaysAgo(1)),
      csr,
      401,
      'FULMAR_CERTIFICATE_UNKNOWN',
      /another relay/,
    ],
    ['of a user', await client('jane', undefined), csr, 401, 'FULMAR_CERTIFICATE_UNKNOWN', /not a node/],
    ['of a master', await client('root', 'system:masters'), csr, 401, 'FULMAR_CERTIFICATE_UNKNOWN', /not a node/],
    [
      'a node’s name alone',
      await client('system:node:h1', undefined),
      csr,
      401,
      'FULMAR_CERTIFICATE_UNKNOWN',
      /not a node/,
    ],
    [
      'of a server',
      await issueServer(authority, ['h1'], validFor(now(), 1), asServer),
      csr,
      401,
      'FULMAR_CERTIFICATE_UNKNOWN',
      /not a node/,
    ],
    [
      'from the future',
      await mesh.node('h1', validFor(now() + DAY_MS, 1)),
      csr,
      401,
      'FULMAR_CERTIFICATE_UNKNOWN',
      /valid from .* clock of the relay/,
    ],
    [
      'the name of another node',
      await mesh.node('h2'),
      csr,
      403,
      'FULMAR_CERTIFICATE_OTHER_NODE',
      /certificate is of node h2, the request for system:node:h1/,
    ],
    [
      'more rights',
      await mesh.node('h1'),
      await csrOf(newKey(), 'system:node:h1', 'system:masters'),
      403,
      'FULMAR_CERTIFICATE_OTHER_NODE',
      /own certificate only/,
    ],
    ['no request', await mesh.node('h1'), 'x', 400, 'FULMAR_JOIN_MALFORMED', /P-256/],
  ]
  for (const [name, present, request, status, code, reason] of rows) {
    const answer = await renew(request, present)
    t.equal(answer.status, status, name)
    if (status !== 200) t.match(answer.value, { code, message: reason }, name)
  }
})

t.test('a node that was deleted does not renew, and joins again', async (t) => {
  const { mesh, members, join, renew, token, now } = await start(t)
  const before = await mesh.node('h1', validFor(now() - DAY_MS, LIFE_DAYS))
  members.look(new Map([['h1', '1']]), now(), 0)
  members.look(new Map([['h1', '2']]), now(), 1)
  const csr = await csrOf(newKey(), 'system:node:h1')
  t.match(await renew(csr, before), {
    status: 403,
    value: { code: 'FULMAR_NODE_DELETED', message: /node h1 was deleted.*fulmar join --force/ },
  })
  const key = newKey()
  const joined = await join(await token('h1'), await csrOf(key, 'system:node:h1'))
  t.equal(joined.status, 200)
  const after = { certificatePem: joined.value.certificate, keyPem: key }
  t.equal((await renew(csr, after)).status, 200, 'in the same second')
  t.match(await renew(csr, before), { status: 403 }, 'which does nothing for the certificate from before')
})
