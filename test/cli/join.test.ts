import { execFileSync } from 'node:child_process'
import { mkdirSync, mkdtempSync, readdirSync, rmSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import t from 'tap'
import { identityPaths } from '../../lib/net/identity.ts'
import { formatToken } from '../../lib/wire/join.ts'
import { isRoot } from '../lib/netns.ts'
import { fulmar } from './fulmar.ts'

t.test('a disk that is full', { skip: !isRoot && 'needs root' }, async (t) => {
  const stateDir = mkdtempSync(join(tmpdir(), 'fulmar-'))
  t.teardown(() => rmSync(stateDir, { recursive: true }))
  try {
    execFileSync('mount', ['-t', 'tmpfs', '-o', 'size=64k', 'fulmar-test', stateDir])
  } catch {
    t.pass('no file system can be mounted here')
    return
  }
  t.teardown(() => execFileSync('umount', ['-l', stateDir]))
  try {
    writeFileSync(join(stateDir, 'ballast'), Buffer.alloc(128 << 10))
  } catch {}
  const answer = await fulmar('kubeconfig', '--server', 'https://127.0.0.1:9', '--state-dir', stateDir)
  t.equal(answer.code, 1)
  t.match(answer.stderr, /^fulmar kubeconfig: ENOSPC: .* '.*authority\.pem'; free some space there \(df -h, df -i\)\n$/)
  t.same(
    readdirSync(join(stateDir, 'issuer')).filter((name) => name.endsWith('.tmp')),
    [],
    'nothing is left',
  )
})

t.test('damaged files are no identity: the node joins again', async (t) => {
  const stateDir = mkdtempSync(join(tmpdir(), 'fulmar-'))
  t.teardown(() => rmSync(stateDir, { recursive: true }))
  const paths = identityPaths(stateDir)
  mkdirSync(paths.folder)
  for (const path of [paths.certificate, paths.key, paths.ca]) writeFileSync(path, '')
  const file = { node: 'h1', relays: ['https://127.0.0.1:9'], stun: [], server: 'https://127.0.0.1:9' }
  writeFileSync(paths.node, JSON.stringify(file))
  const token = formatToken({ node: 'h1', secret: 's'.repeat(32), caHash: 'c'.repeat(43) })
  const answer = await fulmar('join', '--relay', 'https://127.0.0.1:9', '--token', token, '--state-dir', stateDir)
  t.equal(answer.code, 1)
  t.match(answer.stderr, /^fulmar join: cannot reach the relay https:\/\/127\.0\.0\.1:9: .*\n$/, 'it tries')
})
