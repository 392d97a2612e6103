// What the active gateway tells its agents, from what it sees and hears.

import t from 'tap'
import { decodeSilence, encodeSilence, Findings, silentNodes } from '../../gateway/findings.ts'
import type { Pool } from '../../lib/k8s/pools.ts'

const cape: Pool = {
  name: 'cape',
  nodes: ['cape1', 'cape2'].map((name) => ({ name, addresses: [], podCidrs: [] })),
  gateways: ['cape1'],
}
const endpoint = { kind: 'endpoint', address: '10.0.0.1', port: 80 } as const

t.test('told in order, and only while it is said', async (t) => {
  const findings = new Findings()
  findings.fromAgent([endpoint, { kind: 'node', pool: 'bay', node: 'bay9' }], 0)
  findings.fromPool(cape, [...silentNodes('cape', ['cape2', 'dune1']), ...silentNodes('dune', ['dune1'])], 1_000)
  const paths = [
    { pool: 'dune', state: 'relayed' },
    { pool: 'fell', state: 'silent' },
  ] as const
  t.strictSame(findings.list(silentNodes('bay', ['bay2']), paths, 2_000), [
    { kind: 'node', pool: 'bay', node: 'bay2' },
    { kind: 'path', pool: 'fell', state: 'silent' },
    endpoint,
    { kind: 'node', pool: 'cape', node: 'cape2' },
    { kind: 'path', pool: 'dune', state: 'relayed' },
  ])
  t.strictSame(findings.list([], [], 3_500), [{ kind: 'node', pool: 'cape', node: 'cape2' }])
  findings.fromPool(cape, [], 3_600)
  t.strictSame(findings.list([], [], 3_700), [])
})

t.test('agents that say much are bounded', async (t) => {
  const findings = new Findings()
  for (let i = 0; i < 2_000; i++) findings.fromAgent([{ ...endpoint, port: 1 + i }], i)
  t.ok(findings.list([], [], 2_000).length <= 16)
})

t.test('between pools', async (t) => {
  const told = silentNodes('cape', ['cape2'])
  t.strictSame(decodeSilence(encodeSilence(told)), told)
  t.strictSame(decodeSilence(encodeSilence([])), [])
  const bytes = encodeSilence(told)
  for (let length = 0; length < 8; length++) t.equal(decodeSilence(bytes.subarray(0, length)), undefined)
  bytes[4] = 2
  t.equal(decodeSilence(bytes), undefined, 'a version to come')
})
