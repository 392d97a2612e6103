import type { NetworkInterfaceInfo } from 'node:os'
import t from 'tap'
import { hostCandidates, mergeCandidates } from '../../gateway/candidates.ts'
import { formatSocketAddress } from '../../lib/address.ts'

const info = (address: string) => ({ address }) as NetworkInterfaceInfo
const mesh = ['10.244.1.0/24', 'fd00:244:1::/64']

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
    const hosts = hostCandidates(interfaces as unknown as Parameters<typeof hostCandidates>[0], 5, mesh)
    t.strictSame(
      hosts.map(({ address }) => formatSocketAddress(address)),
      expected,
    )
    t.ok(hosts.every(({ kind }) => kind === 'host'))
  })

t.test('what STUN servers see comes after, once', async (t) => {
  const hosts = hostCandidates({ eth0: [info('203.0.113.10')] }, 5, mesh)
  const seen = { address: '198.51.100.1', port: 5, family: 4 } as const
  const merged = mergeCandidates(hosts, [seen, seen, { address: '203.0.113.10', port: 5, family: 4 }])
  t.strictSame(
    merged.map(({ kind, address }) => `${kind} ${address.address}`),
    ['host 203.0.113.10', 'reflexive 198.51.100.1'],
  )
})
