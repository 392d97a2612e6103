import { spawn } from 'node:child_process'
import { X509Certificate } from 'node:crypto'
import { mkdtemp, readdir, rm, stat, writeFile } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import t from 'tap'
import { openAuthority, openServerCertificate } from '../../../lib/net/authority.ts'

const DAY_MS = 86_400_000

async function folder(t: { teardown(fn: () => unknown): unknown }): Promise<string> {
  const path = await mkdtemp(join(tmpdir(), 'fulmar-authority-'))
  t.teardown(() => rm(path, { recursive: true }))
  return path
}

t.test('the CA is made once, even by many processes at a time', async (t) => {
  const stateDir = join(await folder(t), 'deep', 'er')
  const script = `import { openAuthority } from ${JSON.stringify(import.meta.resolve('../../../lib/net/authority.ts'))}
    const { certificatePem, keyPem, created } = await openAuthority(${JSON.stringify(stateDir)}, Date.now())
    process.stdout.write(JSON.stringify([created, certificatePem, keyPem]) + '\\n')`
  const answers = await Promise.all(
    Array.from({ length: 4 }, async () => {
      const child = spawn(process.execPath, ['--input-type=module', '-e', script], {
        stdio: ['ignore', 'pipe', 'inherit'],
      })
      let text = ''
      for await (const chunk of child.stdout) text += chunk
      return JSON.parse(text) as [boolean, string, string]
    }),
  )
  t.equal(answers.filter(([created]) => created).length, 1)
  t.equal(new Set(answers.map(([, certificate, key]) => certificate + key)).size, 1)
  t.equal((await stat(join(stateDir, 'issuer', 'authority.pem'))).mode & 0o777, 0o600)
  t.equal((await stat(join(stateDir, 'issuer'))).mode & 0o777, 0o700)
  t.same((await readdir(join(stateDir, 'issuer'))).toSorted(), ['authority.pem', 'ca.crt'], 'nothing is left over')
})

t.test('a damaged CA is named, not replaced', async (t) => {
  const stateDir = await folder(t)
  await openAuthority(stateDir, Date.now())
  await writeFile(join(stateDir, 'issuer', 'authority.pem'), 'x')
  await t.rejects(openAuthority(stateDir, Date.now()), { code: 'FULMAR_USAGE', message: /authority\.pem: .*backup/ })
})

t.test('the server certificate is kept while it is young and has the right names', async (t) => {
  const stateDir = await folder(t)
  const nowMs = Date.now()
  const authority = await openAuthority(stateDir, nowMs)
  const open = async (names: readonly string[], afterDays: number) =>
    new X509Certificate(
      (await openServerCertificate(stateDir, authority, names, nowMs + afterDays * DAY_MS)).certificatePem,
    )
  const names = ['203.0.113.10', '2001:db8:1::10', 'relay.example.com']
  const first = await open(names, 0)
  for (const name of ['203.0.113.10', '2001:db8:1::10', '127.0.0.1', '::1']) t.ok(first.checkIP(name), name)
  for (const name of ['relay.example.com', 'localhost', 'kubernetes.default.svc']) t.ok(first.checkHost(name), name)
  t.equal((await open(names, 60)).serialNumber, first.serialNumber, 'kept at two thirds of its life')
  t.equal((await open([...names, 'localhost'], 0)).serialNumber, first.serialNumber, 'a name that it has anyway')
  const renewed = await open(names, 64)
  t.not(renewed.serialNumber, first.serialNumber, 'renewed after 70 %')
  t.ok(renewed.validToDate > first.validToDate)
  t.not((await open(names.slice(1), 64)).serialNumber, renewed.serialNumber, 'a name less')
  const more = await open([...names, '192.0.2.9'], 64)
  t.ok(more.checkIP('192.0.2.9'), 'a name more')
  await writeFile(join(stateDir, 'issuer', 'server.pem'), 'x')
  t.not((await open([...names, '192.0.2.9'], 64)).serialNumber, more.serialNumber, 'a damaged one')
  const other = await openAuthority(await folder(t), nowMs)
  const replaced = await openServerCertificate(stateDir, other, [...names, '192.0.2.9'], nowMs + 64 * DAY_MS)
  t.not(new X509Certificate(replaced.certificatePem).serialNumber, more.serialNumber, 'of another CA')
})
