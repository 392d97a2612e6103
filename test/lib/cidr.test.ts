import t from 'tap'
import { contains, covering, normalise, overlaps, parseCidr } from '../../lib/cidr.ts'

const normal: readonly (readonly [string, string | undefined])[] = [
  ['10.244.1.0/24', '10.244.1.0/24'],
  ['10.244.1.77/24', '10.244.1.0/24'],
  ['FD00:244:0:0::/64', 'fd00:244::/64'],
  ['fd00::1', 'fd00::1'],
  ['0.0.0.0/0', '0.0.0.0/0'],
  ['::/0', '::/0'],
  ['10.1.2.3/32', '10.1.2.3/32'],
  ['10.1', undefined],
  ['0x7f.0.0.1', undefined],
  ['10.0.0.0/', undefined],
  ['10.0.0.0/08', undefined],
  ['10.0.0.0/33', undefined],
  ['fd00::/129', undefined],
  ['fe80::1%eth0', undefined],
  ['fe80::%eth0/64', undefined],
  ['', undefined],
]
for (const [text, expected] of normal) t.equal(normalise(text), expected, JSON.stringify(text))

const relations: readonly (readonly [string, string, boolean])[] = [
  ['10.244.0.0/16', '10.244.255.255', true],
  ['10.244.0.0/16', '10.245.0.0', false],
  ['10.244.0.0/16', 'fd00::1', false],
  ['fd00:96::/108', 'fd00:96::f:ffff', true],
  ['fd00:96::/108', 'fd00:96::10:0', false],
]
for (const [cidr, address, inside] of relations)
  t.equal(contains(parseCidr(cidr)!, address), inside, `${cidr} ∋ ${address}`)

t.ok(overlaps(parseCidr('10.0.0.0/8')!, parseCidr('10.9.0.0/16')!))
t.notOk(overlaps(parseCidr('10.0.0.0/16')!, parseCidr('10.1.0.0/16')!))
t.notOk(overlaps(parseCidr('0.0.0.0/0')!, parseCidr('::/0')!))

// What a search finds is what a look at each prefix finds.
const prefixes = ['10.1.0.0/16', '10.1.2.0/24', '10.0.0.0/24', 'fd00:2::/64', 'no prefix', '10.3.0.7/32', '0.0.0.0/32']
const covers = covering(prefixes)
for (const address of [
  ...['0.0.0.0', '0.0.0.1', '9.255.255.255', '10.0.0.0', '10.0.0.255', '10.0.1.0', '10.1.0.0', '10.1.2.9', '10.1.3.0'],
  ...['10.1.255.255', '10.2.0.0', '10.3.0.6', '10.3.0.7', '10.3.0.8', '255.255.255.255', 'no address'],
  ...['::', 'fd00:1:ffff::', 'fd00:2::', 'fd00:2::ffff:ffff:ffff:ffff', 'fd00:2:0:1::', 'ffff::'],
])
  t.equal(
    covers(address),
    prefixes.some((text) => contains(parseCidr(text) ?? parseCidr('255.0.0.0/32')!, address)),
    `${address} among ${prefixes.length} prefixes`,
  )
t.equal(covering([])('10.0.0.1'), false)
