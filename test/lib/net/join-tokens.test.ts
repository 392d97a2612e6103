import { mkdtemp, readdir, readFile, rm, writeFile } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import t from 'tap'
import { createToken, readToken, readTokenUse, removeOldTokens, useToken } from '../../../lib/net/join-tokens.ts'

const DAY_MS = 86_400_000

t.test('a token on disk', async (t) => {
  const stateDir = await mkdtemp(join(tmpdir(), 'fulmar-tokens-'))
  t.teardown(() => rm(stateDir, { recursive: true }))
  const folder = join(stateDir, 'issuer', 'tokens')
  const nowMs = Date.now()
  const secret = await createToken(stateDir, 'h1', nowMs + DAY_MS)
  t.ok(Buffer.from(secret, 'base64url').length >= 16, '128 bits or more')
  t.same(await readToken(stateDir, secret), { node: 'h1', expiresAt: nowMs + DAY_MS })
  const other = secret.replace(/.$/, (last) => (last === 'a' ? 'b' : 'a'))
  t.equal(await readToken(stateDir, other), undefined, 'another secret')
  for (const name of await readdir(folder))
    t.notOk((name + (await readFile(join(folder, name), 'utf8'))).includes(secret), 'the secret is not on disk')

  t.equal(await readTokenUse(stateDir, secret), undefined)
  t.same(await useToken(stateDir, secret, { key: 'a', certificate: 'A' }), { key: 'a', certificate: 'A' })
  t.same(
    await useToken(stateDir, secret, { key: 'b', certificate: 'B' }),
    { key: 'a', certificate: 'A' },
    'the first use stands',
  )

  const lost = join(folder, `${'0'.repeat(64)}.token.abcdef.tmp`)
  await writeFile(lost, '{"node":')
  await removeOldTokens(stateDir, nowMs)
  t.equal((await readdir(folder)).length, 3, 'what is young stays')
  await removeOldTokens(stateDir, nowMs + 7 * DAY_MS)
  t.ok(await readToken(stateDir, secret), 'kept for a week after it expired, to say so')
  await removeOldTokens(stateDir, nowMs + 8 * DAY_MS)
  t.same(await readdir(folder), [], 'then it goes, with its use and what a dead writer left')
})
