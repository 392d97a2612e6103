import { mkdir, mkdtemp, rm, writeFile } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import t from 'tap'
import { createAuthority, createClient, validFor } from '../../../lib/certificates.ts'
import { damageOf, identityPaths, loadIdentity, tlsOptions } from '../../../lib/net/identity.ts'

const NODE = {
  node: 'h1',
  relays: ['https://203.0.113.10:443'],
  stun: ['203.0.113.10:3478'],
  server: 'https://203.0.113.10:443',
}
const FILES = { certificate: 'CERT', key: 'KEY', ca: 'CA', node: JSON.stringify(NODE) }

const rows: readonly [
  name: string,
  change: Partial<Record<keyof typeof FILES, string | undefined>>,
  error: RegExp | undefined,
][] = [
  ['everything there', {}, undefined],
  ['no node.json', { node: undefined }, /node\.json is missing: .*run fulmar join/],
  ['no key', { key: undefined }, /node\.key is missing/],
  ['no certificate', { certificate: undefined }, /node\.crt is missing/],
  ['no CA', { ca: undefined }, /ca\.crt is missing/],
  ['node.json is no JSON', { node: '{' }, /node\.json is damaged.*--force/],
  ['node.json is null', { node: 'null' }, /damaged/],
  ['no relay', { node: JSON.stringify({ ...NODE, relays: [] }) }, /damaged/],
  ['stun of a wrong type', { node: JSON.stringify({ ...NODE, stun: 'x' }) }, /damaged/],
]

for (const [name, change, error] of rows)
  t.test(name, async (t) => {
    const stateDir = await mkdtemp(join(tmpdir(), 'fulmar-identity-'))
    t.teardown(() => rm(stateDir, { recursive: true }))
    const paths = identityPaths(stateDir)
    await mkdir(paths.folder)
    const files: Record<string, string | undefined> = { ...FILES, ...change }
    for (const [key, content] of Object.entries(files))
      if (content !== undefined) await writeFile(paths[key as keyof typeof FILES], content)
    if (error !== undefined)
      return void (await t.rejects(loadIdentity(stateDir), { code: 'FULMAR_IDENTITY', message: error }))
    const identity = await loadIdentity(stateDir)
    t.same(identity, { ...NODE, certificatePem: 'CERT', keyPem: 'KEY', caPem: 'CA' })
    t.same(tlsOptions(identity), { cert: 'CERT', key: 'KEY', ca: 'CA', minVersion: 'TLSv1.2' })
  })

t.test('damage', async (t) => {
  const validity = validFor(Date.now(), 1)
  const { certificatePem: caPem, keyPem: otherKey, ...rest } = await createAuthority('fulmar', validity)
  const subject = { commonName: 'system:node:h1', organization: 'system:nodes' }
  const own = await createClient({ certificatePem: caPem, keyPem: otherKey, ...rest }, subject, validity)
  const identity = { ...NODE, ...own, caPem }
  t.equal(damageOf(identity, '/s'), undefined)
  const rows: readonly [change: Partial<typeof identity>, expected: RegExp][] = [
    [{ certificatePem: '' }, /^\/s\/identity\/node\.crt cannot be read; run fulmar join --force/],
    [{ keyPem: 'x', caPem: '' }, /^\/s\/identity\/node\.key and \/s\/identity\/ca\.crt cannot be read/],
    [{ keyPem: otherKey }, /^\/s\/identity\/node\.key is not the key of \/s\/identity\/node\.crt/],
  ]
  for (const [change, expected] of rows) t.match(damageOf({ ...identity, ...change }, '/s'), expected)
})
