import t from 'tap'
import { createPrefixLimit, prefixHash } from '../../relay/prefix-limit.ts'

const same: readonly (readonly [string, string, boolean])[] = [
  ['192.0.2.1', '192.0.2.254', true],
  ['192.0.2.1', '192.0.3.1', false],
  ['192.0.2.1', '19.20.2.1', false],
  ['2001:db8:1::1', '2001:db8:1:ffff::2', true],
  ['2001:db8:1::1', '2001:db8:2::1', false],
  ['2001:db8::1', '2001:db8:0:5::1', true],
  ['2001:db8::1', '2001:db8:1::1', false],
  ['fe80::1%eth0', 'fe80::2%eth1', true],
]
for (const [a, b, expected] of same) t.equal(prefixHash(a, 1) === prefixHash(b, 1), expected, `${a} and ${b}`)
t.not(prefixHash('192.0.2.1', 1), prefixHash('192.0.2.1', 2), 'another seed')

t.test('a prefix has its burst, then its rate; others have theirs', async (t) => {
  const admit = createPrefixLimit({ perSecond: 20, burst: 100 }, 0x5eed)
  const admitted = (address: string, count: number, nowMs: number): number => {
    let answered = 0
    for (let i = 0; i < count; i++) if (admit(address, nowMs)) answered++
    return answered
  }
  t.equal(admitted('192.0.2.1', 1000, 5000), 100, 'the burst')
  t.equal(admitted('192.0.2.77', 10, 5000), 0, 'shared by the whole /24')
  t.equal(admitted('198.51.100.1', 1000, 5000), 100, 'not by another')
  t.equal(admitted('192.0.2.1', 1000, 6000), 20, 'a second later')
  t.equal(admitted('192.0.2.1', 1000, 3_600_000), 100, 'after a long silence no more than the burst')
})

t.test('the buckets are used evenly', async (t) => {
  const buckets = new Set<number>()
  for (let b = 0; b < 128; b++) for (let c = 0; c < 256; c++) buckets.add(prefixHash(`10.${b}.${c}.1`, 99) & 32767)
  // 32768 balls into as many bins fill 63 % of them.
  t.ok(buckets.size > 19_500, `${buckets.size} buckets for 32768 neighbouring networks`)
})
