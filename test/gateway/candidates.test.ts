import type { NetworkInterfaceInfo } from 'node:os'
import t from 'tap'
import { MAX_CANDIDATES, type Candidate } from '../../gateway/announcement.ts'
import { hostAddresses, insideOf, ownCandidates, peerCandidates } from '../../gateway/candidates.ts'
import { formatSocketAddress, parseSocketAddress, type SocketAddress } from '../../lib/address.ts'

const info = (address: string) => ({ address }) as NetworkInterfaceInfo
const isInside = insideOf(['10.244.1.0/24', 'fd00:244:1::/64'])
const at = (text: string): SocketAddress => parseSocketAddress(text)!
const show = (candidates: readonly Candidate[]) =>
  candidates.map(({ kind, address }) => `${kind} ${formatSocketAddress(address)}`)

for (const [name, interfaces, expected] of [
  [
    'a LAN address of each family',
    { eth0: [info('192.168.1.10'), info('2001:db8::10')] },
    ['192.168.1.10:5', '[2001:db8::10]:5'],
  ],
  ['not loopback, not link-local', { lo: [info('127.0.0.1')], eth0: [info('fe80::1'), info('169.254.3.4')] }, []],
  [
    'nothing inside the mesh',
    { eth1: [info('10.244.1.1'), info('fd00:244:1::1')], eth0: [info('10.0.0.1')] },
    ['10.0.0.1:5'],
  ],
  [
    'no device of ours or of a CNI',
    { 'fm-direct': [info('10.0.0.9')], cni0: [info('10.0.0.8')], veth12: [info('10.0.0.7')] },
    [],
  ],
] as const)
  t.test(name, async (t) => {
    const input = interfaces as unknown as Parameters<typeof hostAddresses>[0]
    t.strictSame(hostAddresses(input, 5, isInside).map(formatSocketAddress), expected)
  })

t.test('what lies inside the mesh', async (t) => {
  for (const [address, inside] of [
    ['10.244.1.1', true],
    ['10.244.2.1', false],
    ['fd00:244:1::7', true],
    ['fd00:244:2::7', false],
    ['fd66:756c:6d61:1::1', true],
    ['fe80::1', true],
    ['192.168.1.1', false],
  ] as const)
    t.equal(isInside(address), inside, address)
})

t.test('what we announce: interfaces, then the router, then STUN servers, each address once', async (t) => {
  const [lan, router, nat] = [at('192.168.1.10:5'), at('198.51.100.1:5'), at('198.51.100.1:6')]
  t.strictSame(show(ownCandidates([lan], [router], [router, nat, nat])), [
    'host 192.168.1.10:5',
    'mapped 198.51.100.1:5',
    'reflexive 198.51.100.1:6',
  ])
  t.strictSame(show(ownCandidates([router], [router], [router])), ['host 198.51.100.1:5'], 'public itself')
})

t.test('a host with many addresses leaves room for what the outside sees', async (t) => {
  const hosts = Array.from({ length: 40 }, (_, i) => at(`10.0.0.${i + 1}:5`))
  const own = ownCandidates(hosts, [at('198.51.100.1:5')], [at('198.51.100.1:6')])
  t.equal(own.length, MAX_CANDIDATES)
  t.strictSame(show(own.slice(-2)), ['mapped 198.51.100.1:5', 'reflexive 198.51.100.1:6'])
  const outside = Array.from({ length: 40 }, (_, i) => at(`198.51.100.1:${i + 1}`))
  t.equal(ownCandidates(hosts, [], outside).length, MAX_CANDIDATES)
})

t.test('what we try of a peer', async (t) => {
  const announced: readonly Candidate[] = [
    { kind: 'host', address: at('192.168.1.10:5') },
    { kind: 'host', address: at('10.244.1.9:5') },
    { kind: 'mapped', address: at('198.51.100.1:5') },
    { kind: 'reflexive', address: at('198.51.100.1:6') },
    { kind: 'reflexive', address: at('[fd66:756c:6d61::1]:6') },
  ]
  t.strictSame(
    show(peerCandidates(announced, [at('203.0.113.1:4500'), at('198.51.100.1:5'), at('10.244.1.1:4500')], isInside)),
    ['host 192.168.1.10:5', 'static 203.0.113.1:4500', 'static 198.51.100.1:5', 'reflexive 198.51.100.1:6'],
    'the object comes after the LAN, nothing inside the mesh, each address once',
  )
})
