// `fulmar token create`: makes join tokens on the relay's machine, one line `NODE TOKEN` each. The relay need not run,
// and if it runs, need not be told.

import { X509Certificate } from 'node:crypto'
import { spkiHash } from '../lib/certificates.ts'
import { stateDirOption } from '../lib/common-options.ts'
import { duration, list, type Options } from '../lib/config.ts'
import { openAuthorityForPeople } from '../lib/net/authority.ts'
import { createToken, MAX_TOKEN_TTL_MS } from '../lib/net/join-tokens.ts'
import { readOptions } from '../lib/net/options.ts'
import { formatToken, isNodeName } from '../lib/wire/join.ts'

const nodeName = (value: string): string => {
  if (!isNodeName(value)) throw new Error(`${value} is not a name for a Node: lower case letters, digits, - and .`)
  return value
}
const nodeNames = (value: string): readonly string[] => {
  const names = list(nodeName)(value)
  if (names.length === 0) throw new Error('names no node')
  return names
}
const OPTIONS = {
  node: { name: 'node', value: 'NAME,…', doc: 'the nodes to make tokens for', parse: nodeNames },
  ttlMs: {
    name: 'ttl',
    value: 'TIME',
    doc: 'how long they can be used, at most 24h',
    fallback: '24h',
    parse: duration(1_000, MAX_TOKEN_TTL_MS),
  },
  stateDir: stateDirOption('that of the relay'),
} satisfies Options

export async function main(argv: readonly string[], env: NodeJS.ProcessEnv): Promise<number> {
  const values = readOptions('fulmar token create --node NAME[,NAME…]', OPTIONS, argv, env)
  if (typeof values === 'number') return values
  const { node: nodes, ttlMs, stateDir } = values
  const nowMs = Date.now()
  const authority = await openAuthorityForPeople('fulmar token', stateDir, nowMs)
  const caHash = spkiHash(new X509Certificate(authority.certificatePem))
  for (const node of nodes) {
    const secret = await createToken(stateDir, node, nowMs + ttlMs)
    process.stdout.write(`${node} ${formatToken({ node, secret, caHash })}\n`)
  }
  return 0
}
