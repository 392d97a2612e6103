import t from 'tap'
import { elementReader, slotsReader } from '../../agent/nft-fields.ts'
import { slotElements } from '../../agent/nft-service.ts'

const v6 = [0xfd, 0, 0, 0x96, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1]
const words = {
  tcp: [6, 0, 0, 0],
  udp: [17, 0, 0, 0],
  sctp: [132, 0, 0, 0],
  port80: [0, 80, 0, 0],
  port8080: [0x1f, 0x90, 0, 0],
}

t.test('elements as the kernel has them', async (t) => {
  const { tcp, udp, sctp, port80, port8080 } = words
  const rows: readonly [
    object: string,
    family: 4 | 6,
    element: readonly [key: string, value: string],
    key: readonly number[],
    value?: readonly number[] | object,
  ][] = [
    [
      ...(['services', 4] as const),
      ['10.96.0.1 . tcp . 80', 'goto class-3'],
      [10, 96, 0, 1, ...tcp, ...port80],
      { kind: 'goto', chain: 'class-3' },
    ],
    ['outside', 4, ['10.96.0.1 . udp . 8080', 'drop'], [10, 96, 0, 1, ...udp, ...port8080], { kind: 'drop' }],
    ['node-ports', 6, ['sctp . 80', 'goto refuse'], [...sctp, ...port80], { kind: 'goto', chain: 'refuse' }],
    ['cluster-ips', 6, ['fd00:96::1', ''], v6],
    ['hairpin', 4, ['10.244.1.4 . 10.244.1.4', ''], [10, 244, 1, 4, 10, 244, 1, 4]],
    [
      ...(['endpoints-300', 6] as const),
      ['fd00:96::1 . tcp . 80 . 258', 'fd00:96::1 . 8080'],
      [...v6, ...tcp, ...port80, 2, 1, 0, 0],
      [...v6, ...port8080],
    ],
    [
      ...(['node-inside-endpoints-2', 4] as const),
      ['tcp . 80 . 1', '10.244.1.4 . 8080'],
      [...tcp, ...port80, 1, 0, 0, 0],
      [10, 244, 1, 4, ...port8080],
    ],
    ['services', 4, ['10.96.0.1 . tcp . 80', ''], [10, 96, 0, 1, ...tcp, ...port80]],
  ]
  for (const [object, family, [key, value], keyBytes, wanted] of rows)
    t.strictSame(
      elementReader(object, family)!(key, value),
      {
        key: Buffer.from(keyBytes),
        ...(wanted !== undefined && { value: Array.isArray(wanted) ? Buffer.from(wanted) : wanted }),
      },
      `${object} { ${key} : ${value} }`,
    )
})

t.test('what nft writes', async (t) => {
  for (const object of ['source-ranges', 'mesh', 'remote', 'own-pods', 'another'])
    t.equal(elementReader(object, 4), undefined)
})

t.test('what is written otherwise', async (t) => {
  for (const [object, key, value] of [
    ['services', '10.96.0.1 . tcp', 'drop'],
    ['services', '10.96.0.1 . icmp . 80', 'drop'],
    ['services', '10.96.0.1 . tcp . http', 'drop'],
    ['services', '10.96.0.1 . tcp . 80', 'accept'],
    ['services', 'fd00::1 . tcp . 80', 'drop'],
    ['cluster-ips', '10.96.0.0/24', ''],
  ] as const)
    t.throws(() => elementReader(object, 4)!(key, value), TypeError, `${object} { ${key} : ${value} }`)
})

t.test('slots together are the same elements as one by one', async (t) => {
  const rows = [
    { map: 'endpoints-2', family: 4, key: '10.96.0.1 . tcp . 80', addresses: ['10.244.1.4', '10.244.1.5'] },
    { map: 'inside-endpoints-2', family: 6, key: 'fd00:96::1 . udp . 80', addresses: ['fd00:244:1::4', 'fd00::'] },
    { map: 'node-endpoints-2', family: 4, key: 'sctp . 30080', addresses: ['10.244.1.4', '10.244.1.4'] },
  ] as const
  for (const { map, family, key, addresses } of rows) {
    const slots = addresses.map((address, i) => ({ address, port: 8080 + i, node: undefined, weight: 1 }))
    const read = elementReader(map, family)!
    t.strictSame(
      slotsReader(map, family)(key, slots),
      slotElements(key, slots).map((element) => read(...element)),
      map,
    )
  }
})
