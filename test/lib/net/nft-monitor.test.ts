// What others remove, as nft says it, by one process for two who follow.

import t from 'tap'
import { createLog } from '../../../lib/log.ts'
import { run } from '../../../lib/net/exec.ts'
import { openNftMonitor } from '../../../lib/net/nft-monitor.ts'
import { enterCage } from '../../agent/cage.ts'
import { isRoot, until } from '../netns.ts'

const ELEMENTS = 3_000
const PATIENCE_MS = 30_000

const cage = isRoot ? enterCage('fmw-', import.meta.url) : undefined
if (!isRoot) t.test('needs root', { skip: true }, () => {})
if (cage !== undefined) {
  const controller = new AbortController()
  const monitor = openNftMonitor(createLog('test', 'silent'), controller.signal)
  const follow = () => {
    const heard = { lines: [] as string[], starts: 0 }
    monitor.follow({ onLine: (line) => heard.lines.push(line), onStart: () => heard.starts++ })
    return heard
  }
  const first = follow()
  await until('it listens', PATIENCE_MS, async () => first.starts === 1)
  const second = follow()
  t.equal(second.starts, 1, 'who comes later is told so')

  t.test('lines are whole, and none is lost', async (t) => {
    const keys = Array.from({ length: ELEMENTS }, (_, i) => `10.${i >> 16}.${(i >> 8) & 255}.${i & 255}`)
    await run('nft', ['-f', '-'], {
      input: `table ip test { set s { type ipv4_addr; elements = { ${keys.join(', ')} }; }; chain c { counter; }; }\n`,
    })
    await run('nft', ['-f', '-'], {
      input: `flush chain ip test c\ndelete element ip test s { ${keys.join(', ')} }\ndelete table ip test\n`,
    })
    await until('the last is heard', PATIENCE_MS, async () => first.lines.includes('delete table ip test'))
    const elements = first.lines.filter((line) => /^delete element ip test s \{ [\d.]+ \}$/.test(line))
    t.equal(new Set(elements).size, ELEMENTS)
    t.ok(first.lines.some((line) => line.startsWith('delete rule ip test c')))
    t.strictSame(second.lines, first.lines, 'both hear the same')
  })
  t.test('an abort ends it', async (t) => {
    controller.abort()
    await monitor.done
    t.pass()
  })
}
