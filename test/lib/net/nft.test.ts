// Transactions through a child that stays open, in a network of their own.

import { existsSync, statSync } from 'node:fs'
import { homedir } from 'node:os'
import { join } from 'node:path'
import t from 'tap'
import { createLog } from '../../../lib/log.ts'
import { run } from '../../../lib/net/exec.ts'
import { openNft } from '../../../lib/net/nft.ts'
import { enterNamespace } from '../../agent/namespace.ts'

const HISTORY = join(homedir(), '.nft.history')
const historyAt = () => (existsSync(HISTORY) ? statSync(HISTORY).mtimeMs : 0)

if (enterNamespace('fmn-', import.meta.url) !== undefined) {
  const life = new AbortController()
  const nft = openNft(life.signal, createLog('test', 'silent'))
  t.teardown(() => life.abort())

  t.test('a line is a transaction: all of it, or nothing and why', async (t) => {
    await nft.apply(['add table ip t', 'add set ip t numbers { type mark; }'])
    await t.rejects(nft.apply(['add element ip t numbers { 1 }', 'add element ip t nothing { 2 }']), {
      code: 'FULMAR_NFT',
      message: /No such file or directory/,
    })
    t.notMatch(await run('nft', ['list', 'table', 'ip', 't']), /elements/)
  })

  t.test('more of them than one child takes, in order, and none is lost', async (t) => {
    const before = historyAt()
    for (let i = 0; i < 1_200; i += 100) {
      const changes = Array.from({ length: 100 }, (_, n) =>
        n % 2 === 0 ? `add element ip t numbers { ${i + n} }` : `delete element ip t numbers { ${i + n - 1} }`,
      )
      await Promise.all(changes.map((change) => nft.apply([change])))
    }
    t.notMatch(await run('nft', ['list', 'table', 'ip', 't']), /elements/)
    t.equal(historyAt(), before, 'no history is saved')
  })
}
