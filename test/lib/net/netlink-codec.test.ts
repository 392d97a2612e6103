// Bodies by the definitions of linux/rtnetlink.h, fib_rules.h, nexthop.h, if_addr.h and if_link.h, little-endian; the tests of
// the loops put the same bytes to the kernel.

import t from 'tap'
import { endianness } from 'node:os'
import {
  addressBody,
  addressOf,
  encode,
  eventOf,
  hopBody,
  hopOf,
  linkOf,
  nexthopBody,
  nexthopIdBody,
  nexthopOf,
  routeBody,
  routeOf,
  ruleBody,
  ruleOf,
} from '../../../lib/net/netlink-codec.ts'
import { MESH_RULES } from '../../../lib/net/route-table.ts'
import type { Route } from '../../../lib/routes.ts'

if (endianness() !== 'LE') t.bailout('literal bytes are little-endian')
const hex = (parts: readonly Uint8Array[]) => Buffer.concat(parts).toString('hex')
const bytes = (text: string) => Buffer.from(text.replace(/[^0-9a-f]/g, ''), 'hex')

const over: Route = {
  family: 4,
  table: 7077,
  protocol: 178,
  destination: '10.244.2.0/24',
  metric: 100,
  kind: 'unicast',
  nexthop: 0x46000002,
  source: '10.244.1.1',
  mtu: 1380,
}
const via: Route = {
  family: 6,
  table: 7077,
  protocol: 177,
  destination: 'fd00:244:2::/64',
  metric: 200,
  kind: 'unicast',
  via: 'fd00:168:1::11',
  device: 2,
}
const crossing: Route = {
  family: 4,
  table: 7077,
  protocol: 177,
  destination: '10.244.2.0/24',
  metric: 200,
  kind: 'unicast',
  via: 'fe80::1',
  device: 9,
}
const unreachable: Route = {
  family: 4,
  table: 7077,
  protocol: 178,
  destination: '10.244.2.0/24',
  metric: 10_000,
  kind: 'unreachable',
}

t.test('literal bodies', (t) => {
  const rows: readonly [string, string, string][] = [
    [
      'a route over a nexthop object',
      hex(encode(routeBody(over, 'add'))),
      '02180000fcb20001 00000000 08000100 0af40200 08000f00 a51b0000 08000600 64000000 08001e00 02000046 08000700 0af40101 0c000800 08000200 64050000',
    ],
    [
      'its removal matches any scope',
      hex(encode(routeBody(unreachable, 'remove'))),
      '02180000fcb2ff07 00000000 08000100 0af40200 08000f00 a51b0000 08000600 10270000',
    ],
    [
      'a nexthop',
      hex(encode(nexthopBody({ id: 0x46000003, family: 6, device: 5, protocol: 178 }))),
      '0a00b200 00000000 08000100 03000046 08000500 05000000',
    ],
    [
      'its removal is its id',
      hex(encode(nexthopIdBody({ id: 1, family: 6, device: 5, protocol: 178 }))),
      '00000000 00000000 08000100 01000000',
    ],
    [
      'the rule',
      hex(encode(ruleBody(MESH_RULES.find(({ invert }) => invert)!))),
      '02000000fc000001 02000000 08000600 ed130000 08000f00 a51b0000 08000a00 00000046 08001000 000000ff',
    ],
    [
      'the rule for what came in over the mesh',
      hex(encode(ruleBody(MESH_RULES[0]!))),
      '02000000fc000001 00000000 08000600 ec130000 08000f00 a61b0000 0e000300 666d2d64697265637400',
    ],
    [
      'an IPv4 route by way of an IPv6 address',
      hex(encode(routeBody(crossing, 'add'))),
      `02180000fcb10001 00000000 08000100 0af40200 08000f00 a51b0000 08000600 c8000000 08000400 09000000 16001200 0a00fe80${'0'.repeat(27)}1`,
    ],
    [
      'where a marked packet goes',
      hex(encode(hopBody(4, '192.168.1.11', 0x46000000))),
      '0220000000000000 00100000 08000100 c0a8010b 08001000 00000046',
    ],
    [
      'an address without duplicate detection',
      hex(encode(addressBody({ device: 5, family: 6, address: 'fe80::1', length: 64 }))),
      `0a4002fd 05000000 14000200 fe80${'0'.repeat(27)}1 14000100 fe80${'0'.repeat(27)}1`,
    ],
  ]
  for (const [name, actual, expected] of rows) t.equal(actual, expected.replaceAll(' ', ''), name)
  t.end()
})

t.test('round trips', (t) => {
  for (const route of [over, via, crossing, unreachable])
    t.same(routeOf(Buffer.concat(encode(routeBody(route, 'add')))), route)
  const nexthop = { id: 7, family: 4 as const, device: 5, protocol: 178 }
  t.same(nexthopOf(Buffer.concat(encode(nexthopBody(nexthop)))), nexthop)
  for (const rule of MESH_RULES) t.same(ruleOf(Buffer.concat(encode(ruleBody(rule)))), rule)
  const address = { device: 5, family: 4 as const, address: '10.244.1.1', length: 32 }
  t.same(addressOf(Buffer.concat(encode(addressBody(address)))), address)
  t.end()
})

t.test('what the kernel says', (t) => {
  // ifname fm-direct, mtu 1380, an attribute of a kernel to come (number 9999), linkinfo { kind tun }
  const link =
    '0000feff 05000000 41000100 00000000 0e000300 666d2d64697265637400 0000 08000400 64050000 06000f27 0102 0000 0c001200 08000100 74756e00'
  t.same(linkOf(bytes(link)), { index: 5, name: 'fm-direct', kind: 'tun', up: true, mtu: 1380, resolves: false })
  t.match(eventOf(17, bytes(link)), { kind: 'link', removed: true, link: { name: 'fm-direct' } })
  t.match(linkOf(bytes('00000100 05000000 43000000 00000000')), { resolves: true }, 'Ethernet')
  t.match(linkOf(bytes('00000100 05000000 c3000000 00000000')), { resolves: false }, 'Ethernet without ARP')
  const route = eventOf(24, bytes('02180000fe030001 00000000 08000100 0af40200'))
  t.match(route, { kind: 'route', table: 254, removed: false })
  t.equal(route?.kind === 'route' && route.destination(), '10.244.2.0/24')
  t.match(eventOf(25, bytes('02180000fc030001 00000000 08000f00 a51b0000')), { table: 7077, removed: true })
  const hop = '02200000fe000001 00000000 08000f00 fe000000 08000400 02000000'
  t.same(hopOf(bytes(hop)), { device: 2, table: 254, via: undefined }, 'on the link')
  t.same(hopOf(bytes(`${hop} 08000500 c0a80101`)), { device: 2, table: 254, via: '192.168.1.1' }, 'by way of a router')
  t.equal(hopOf(bytes(hop.replace('0001', '0002'))), undefined, 'here')
  t.equal(eventOf(28, bytes('00000000')), undefined, "neighbours are nobody's concern")
  t.equal(routeOf(bytes('80000000fc110005 00000000')), undefined, 'nor are multicast routes')
  t.match(routeOf(bytes('0200000000030001 00000000')), { destination: '0.0.0.0/0', table: 0, metric: 0 })
  t.end()
})
