// Bodies by the definitions of linux/if_link.h and neighbour.h, little-endian; the overlay's tests put the same bytes to the
// kernel.

import t from 'tap'
import { endianness } from 'node:os'
import { encode } from '../../../lib/net/netlink-codec.ts'
import {
  forwardingBody,
  forwardingOf,
  neighbourBody,
  neighbourOf,
  vxlanBody,
  vxlanOf,
  type VxlanSpec,
} from '../../../lib/net/vxlan-codec.ts'

if (endianness() !== 'LE') t.bailout('literal bytes are little-endian')
const joined = (parts: Parameters<typeof encode>[0]) => Buffer.concat(encode(parts))

const v4: VxlanSpec = { id: 7077, port: 7080, local: '192.168.1.11', mac: '02:00:00:00:00:01' }
const v6: VxlanSpec = { ...v4, local: '2001:db8::11' }

t.test('a device', (t) => {
  t.equal(
    joined(vxlanBody('fm-vxlan', v4)).toString('hex'),
    `${'0'.repeat(32)}0a000100 020000000001 0000 0d000300 666d2d76786c616e00 000000
     34001200 09000100 76786c616e 000000 24000200 08000100 a51b0000 08000400 c0a8010b 05000700 00000000 06000f00 1ba80000`.replace(
      /\s/g,
      '',
    ),
  )
  for (const spec of [v4, v6])
    t.same(vxlanOf(joined(vxlanBody('fm-vxlan', spec))), { ...spec, device: 0, name: 'fm-vxlan', learning: false })
  t.equal(vxlanOf(Buffer.alloc(16)), undefined, 'hardware')
  t.end()
})

t.test('entries', (t) => {
  const entry = { device: 9, mac: v4.mac, endpoint: '172.16.1.12' }
  t.equal(
    joined(forwardingBody(entry)).toString('hex'),
    '0700000009000000 80000200 08000100 ac10010c 0a000200 020000000001'.replaceAll(' ', ''),
  )
  t.same(forwardingOf(joined(forwardingBody(entry))), entry)
  const over6 = { ...entry, endpoint: '2001:db8::12' }
  t.same(forwardingOf(joined(forwardingBody(over6))), over6)

  const neighbour = { device: 9, address: 'fe80::1', mac: v4.mac }
  t.equal(
    joined(neighbourBody(neighbour)).toString('hex'),
    `0a00000009000000 80000000 14000100 fe80${'0'.repeat(27)}1 0a000200 020000000001`.replaceAll(' ', ''),
  )
  t.same(neighbourOf(joined(neighbourBody(neighbour))), neighbour)
  t.equal(neighbourOf(joined(forwardingBody(entry))), undefined, 'a forwarding entry is none')
  const learned = joined(neighbourBody(neighbour))
  learned.writeUInt16LE(0x02, 8)
  t.equal(neighbourOf(learned), undefined, 'one that the kernel found by itself')
  t.end()
})
