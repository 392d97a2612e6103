import t from 'tap'
import { suggest } from '../../lib/suggest.ts'

const known = ['agent', 'gateway', 'relay', 'status', 'cleanup', 'help']
const rows: readonly [word: string, expected: string | undefined][] = [
  ['sttaus', 'status'],
  ['stat', 'status'],
  ['clean', 'cleanup'],
  ['gatway', 'gateway'],
  ['agents', 'agent'],
  ['relai', 'relay'],
  ['kubectl', undefined],
  ['', undefined],
]
for (const [word, expected] of rows) t.equal(suggest(word, known), expected, `${JSON.stringify(word)}: ${expected}`)
