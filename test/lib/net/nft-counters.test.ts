// Counters as the kernel has them.

import t from 'tap'
import { run } from '../../../lib/net/exec.ts'
import { openNftCounters, readPackets } from '../../../lib/net/nft-counters.ts'
import { enterCage } from '../../agent/cage.ts'
import { isRoot } from '../netns.ts'

const cage = isRoot ? enterCage('fmw-', import.meta.url) : undefined
if (!isRoot) t.test('needs root', { skip: true }, () => {})
if (cage !== undefined) {
  t.test('the kernel’s own count', async (t) => {
    await run('nft', ['-f', '-'], {
      input:
        'table inet test { counter few { packets 3 bytes 180 }; counter many { packets 5000000000 bytes 1 }; quota q { over 1 mbytes }; }\n',
    })
    const counters = openNftCounters('test')
    t.teardown(() => counters.close())
    t.strictSame([await counters.packets('few'), await counters.packets('many')], [3, 5_000_000_000])
    await t.rejects(counters.packets('none'), /counter none of table test/)
    await t.rejects(counters.packets('q'), /ENOENT/, 'another kind')
    await run('nft', ['delete', 'table', 'inet', 'test'])
    await t.rejects(counters.packets('few'), /ENOENT/, 'no table')
  })
  t.test('no bytes break the reader', async (t) => {
    for (let i = 0; i < 2_000; i++) {
      const bytes = Buffer.from(Array.from({ length: i % 90 }, (_, at) => (at * 31 + i * 17 + ((i * at) >> 3)) & 0xff))
      t.throws(() => readPackets(bytes), /no counter/, { diagnostic: false })
    }
  })
}
