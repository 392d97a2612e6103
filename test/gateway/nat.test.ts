import t from 'tap'
import type { SocketAddress } from '../../lib/address.ts'
import type { NatBehaviour } from '../../lib/status.ts'
import {
  furtherServers,
  isUsefulOther,
  natBehaviour,
  retransmitAtMs,
  silentAfterMs,
  isSilence,
  type NatTests,
} from '../../gateway/nat.ts'

const at = (address: string, port: number): SocketAddress => ({ address, port, family: 4 })
const [A1, A2, B1, B2] = [at('203.0.113.10', 1), at('203.0.113.10', 2), at('203.0.113.11', 1), at('203.0.113.11', 2)]
const LOCAL = at('192.168.1.2', 5000)
const PORTS: Readonly<Record<string, SocketAddress>> = {
  l: LOCAL,
  w: at('198.51.100.1', 5000),
  x: at('198.51.100.1', 6000),
  y: at('198.51.100.1', 7000),
  z: at('198.51.100.1', 8000),
  v: at('198.51.100.2', 5000),
}
/** `wxyz`: what A:p1, A:p2, B:p1 and B:p2 saw; `.` for no answer. */
const seen = (letters: string): NatTests['mappings'] =>
  [A1, A2, B1, B2].flatMap((server, i) => {
    const mapped = PORTS[letters[i]!]
    return mapped === undefined ? [] : [{ server, local: LOCAL, mapped }]
  })

const mappings: readonly (readonly [string, string, NatBehaviour['mapping']])[] = [
  ['llll', 'no NAT', 'none'],
  ['l...', 'no NAT, one server', 'none'],
  ['wwww', 'one mapping', 'endpoint-independent'],
  ['w.w.', 'one mapping, two addresses', 'endpoint-independent'],
  ['wwxx', 'by address', 'address-dependent'],
  ['.wxx', 'by address, one test lost', 'address-dependent'],
  ['wxyz', 'by address and port', 'address-and-port-dependent'],
  ['wx..', 'by port, one address', 'address-and-port-dependent'],
  ['w.x.', 'by address or by port: the worse', 'address-and-port-dependent'],
  ['wwvv', 'a pool of addresses counts as a change', 'address-dependent'],
  ['ww..', 'one address tells nothing of others', 'unknown'],
  ['w...', 'one server tells nothing', 'unknown'],
]
for (const [letters, name, expected] of mappings) {
  const tests: NatTests = {
    mappings: seen(letters),
    server: A1,
    fromOther: 'unknown',
    fromOtherPort: 'unknown',
  }
  t.strictSame(natBehaviour(tests), { mapping: expected, filtering: 'unknown', udp: 'open' }, `mapping: ${name}`)
}

t.test('a host that sends to each server from another of its addresses', async (t) => {
  const from = (server: SocketAddress, local: SocketAddress, mapped: SocketAddress) => ({ server, local, mapped })
  const second = at('192.168.1.3', 5000)
  const behaviour = (mappings: NatTests['mappings']) =>
    natBehaviour({ mappings, fromOther: 'unknown', fromOtherPort: 'unknown' }).mapping
  t.equal(behaviour([from(A1, LOCAL, LOCAL), from(B1, second, second)]), 'none', 'each of them public')
  const [w, v, x] = [PORTS['w']!, PORTS['v']!, PORTS['x']!]
  t.equal(behaviour([from(A1, LOCAL, w), from(B1, second, v)]), 'unknown', 'which tells nothing of one mapping')
  t.equal(
    behaviour([from(A1, LOCAL, w), from(B1, second, v), from(A2, LOCAL, x)]),
    'address-and-port-dependent',
    'and those of one address do',
  )
})

const filterings: readonly (readonly [
  string,
  NatTests['fromOther'],
  NatTests['fromOtherPort'],
  string,
  NatBehaviour['filtering'],
])[] = [
  ['lets all in', 'answered', 'unknown', 'wwww', 'endpoint-independent'],
  ['lets all in, and the mapping tests failed', 'answered', 'answered', 'w...', 'endpoint-independent'],
  ['by address', 'silent', 'answered', 'wwww', 'address-dependent'],
  ['by address and port', 'silent', 'silent', 'wwww', 'address-and-port-dependent'],
  ['B is dead', 'silent', 'answered', 'ww..', 'unknown'],
  ['B is dead, and the port test says enough', 'silent', 'silent', 'ww..', 'address-and-port-dependent'],
  ['p2 is blocked on the way out', 'silent', 'silent', 'w.w.', 'unknown'],
  ['refused', 'unknown', 'unknown', 'wwww', 'unknown'],
  ['answered from the wrong place', 'unknown', 'silent', 'wwww', 'address-and-port-dependent'],
]
for (const [name, fromOther, fromOtherPort, letters, expected] of filterings) {
  const tests: NatTests = { mappings: seen(letters), server: A1, other: B2, fromOther, fromOtherPort }
  t.equal(natBehaviour(tests).filtering, expected, `filtering: ${name}`)
}

t.test('all kinds of mapping with all kinds of filtering', async (t) => {
  const kinds = [
    ['none', 'llll', 'silent', 'silent'],
    ['endpoint-independent', 'wwww', 'answered', 'unknown'],
    ['address-dependent', 'wwxx', 'silent', 'answered'],
    ['address-and-port-dependent', 'wxyz', 'silent', 'silent'],
  ] as const
  for (const [mapping, letters] of kinds) {
    for (const [filtering, , fromOther, fromOtherPort] of kinds.slice(1)) {
      const tests: NatTests = { mappings: seen(letters), server: A1, other: B2, fromOther, fromOtherPort }
      const open = mapping === 'none' && filtering === 'endpoint-independent'
      t.strictSame(
        natBehaviour(tests),
        { mapping, filtering: open ? 'none' : filtering, udp: 'open' },
        `${mapping}, ${filtering}`,
      )
    }
  }
})

t.strictSame(
  natBehaviour({ mappings: [], fromOther: 'unknown', fromOtherPort: 'unknown' }),
  { mapping: 'unknown', filtering: 'unknown', udp: 'blocked' },
  'no answer at all',
)
t.strictSame(furtherServers(A1, B2), [B1, B2, A2])
t.strictSame(furtherServers(A1, undefined), [])
for (const [name, other, useful] of [
  ['B:p2', B2, true],
  ['none', undefined, false],
  ['the same port', B1, false],
  ['the same address', A2, false],
  ['port 0', at('203.0.113.11', 0), false],
  ['another family', { address: '2001:db8::1', port: 2, family: 6 } as const, false],
] as const)
  t.equal(isUsefulOther(A1, other), useful, `OTHER-ADDRESS: ${name}`)
t.strictSame([0, 1, 2, 3, 4, 5].map(retransmitAtMs), [0, 100, 300, 500, 700, 900])
t.ok(silentAfterMs(0) < 1100 && silentAfterMs(300) === 1500)
for (const rttMs of [0, 20, 300]) t.ok(isSilence(silentAfterMs(rttMs), rttMs))
t.notOk(isSilence(200, 100))
