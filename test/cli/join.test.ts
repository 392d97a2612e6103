import { mkdirSync, mkdtempSync, rmSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import t from 'tap'
import { identityPaths } from '../../lib/net/identity.ts'
import { formatToken } from '../../lib/wire/join.ts'
import { fulmar } from './fulmar.ts'

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
