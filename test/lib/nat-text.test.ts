import t from 'tap'
import { natName, natText } from '../../lib/nat-text.ts'
import type { NatBehaviour } from '../../lib/status.ts'

t.test('names of NATs', async (t) => {
  const rows: readonly [mapping: NatBehaviour['mapping'], filtering: NatBehaviour['filtering'], expected: string][] = [
    ['none', 'endpoint-independent', 'none'],
    ['none', 'address-and-port-dependent', 'no NAT, firewall'],
    ['endpoint-independent', 'endpoint-independent', 'full cone'],
    ['endpoint-independent', 'address-dependent', 'restricted cone'],
    ['endpoint-independent', 'address-and-port-dependent', 'port restricted cone'],
    ['endpoint-independent', 'unknown', 'cone, filtering unknown'],
    ['address-and-port-dependent', 'address-and-port-dependent', 'symmetric'],
    ['unknown', 'unknown', 'unknown'],
  ]
  for (const [mapping, filtering, expected] of rows)
    t.equal(natName({ mapping, filtering, udp: 'open' }), expected, `${mapping}, ${filtering}: ${expected}`)
  t.equal(natName({ mapping: 'none', filtering: 'none', udp: 'blocked' }), 'UDP blocked')
})

t.test('in RFC words too', async (t) => {
  t.equal(
    natText({
      mapping: 'endpoint-independent',
      filtering: 'address-and-port-dependent',
      udp: 'open',
      mapped: '198.18.1.2:61001',
    }),
    'port restricted cone (mapping endpoint-independent, filtering address-and-port-dependent), seen at 198.18.1.2:61001',
  )
  t.equal(natText({ mapping: 'unknown', filtering: 'unknown', udp: 'blocked' }), 'UDP blocked')
  const unknown = { mapping: 'unknown', filtering: 'unknown', udp: 'open' } as const
  for (const [details, expected] of [
    [{ lifetimeMs: 90_000, lifetimeBelowMs: 170_000 }, 'unknown, keeps idle mappings 90 to 170 s'],
    [{ lifetimeMs: 0, lifetimeBelowMs: 3_000 }, 'unknown, keeps idle mappings less than 3 s'],
    [{ lifetimeMs: 170_000, hairpin: true }, 'unknown, keeps idle mappings 170 s or longer, hairpins'],
    [{ hairpin: false }, 'unknown, no hairpinning'],
  ] as const)
    t.equal(natText({ ...unknown, ...details }), expected)
})
