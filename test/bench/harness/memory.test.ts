import t from 'tap'
import { bytesTogether, memoryOf, statusBytes, wireguardGoOf } from '../../../bench/harness/memory.ts'

const SMAPS = `00400000-04a00000 r-xp 00000000 fe:00 4711                               /usr/local/bin/node
Size:              71680 kB
Rss:               20000 kB
Pss:                5000 kB
Anonymous:             0 kB
04a00000-04b00000 rw-p 04600000 fe:00 4711                               /usr/local/bin/node
Rss:                1000 kB
Anonymous:           400 kB
05000000-06000000 rw-p 00000000 00:00 0                                  [heap]
Rss:                3000 kB
Anonymous:          3000 kB
7f0000000000-7f0000001000 rw-p 00000000 00:00 0
Rss:                  12 kB
Anonymous:            12 kB
7f0000002000-7f0000003000 r--p 00000000 fe:00 4712                       /usr/lib/a b.so
Rss:                 100 kB
Anonymous:             0 kB
VmFlags: rd mr mw me
`

t.test('anonymous, and by file', (t) => {
  const memory = memoryOf(SMAPS)
  t.equal(memory.anonBytes, (400 + 3000 + 12) * 1024)
  t.strictSame(
    [...memory.files],
    [
      ['fe:00 4711 /usr/local/bin/node', (20_000 + 600) * 1024],
      ['fe:00 4712 /usr/lib/a b.so', 100 * 1024],
    ],
  )
  t.equal(bytesTogether([memory]), (3412 + 20_700) * 1024, 'alone: all that is resident')
  const other = { anonBytes: 1024, files: new Map([['fe:00 4711 /usr/local/bin/node', 30_000 * 1024]]) }
  t.equal(bytesTogether([memory, other]), (3412 + 1 + 30_000 + 100) * 1024, 'files count once')
  t.equal(bytesTogether([]), 0)
  t.end()
})

t.test('of a process that runs', (t) => {
  const [anonymous, most] = [statusBytes(process.pid, 'RssAnon'), statusBytes(process.pid, 'VmHWM')]
  t.ok(anonymous > 1 << 20 && most > anonymous, `${anonymous} of ${most} bytes`)
  t.throws(() => statusBytes(1 << 30, 'RssAnon'), { code: 'ENOENT' })
  t.notOk(wireguardGoOf([process.pid]).includes(process.pid))
  t.end()
})
