// What named counters of an nft table have counted, asked of the kernel by their names: 0.1 ms for each, where nft takes 20
// and reads the whole table first.
//
//   nfgenmsg: u8 family (1 inet), u8 version 0, u16 0 | attributes (lib/net/netfilter.ts)
//   asked:    TABLE name, NAME name, TYPE u32
//   answered: …, DATA { BYTES u64, PACKETS u64 }, big-endian

import {
  attribute,
  attributes,
  errnoOf,
  NetfilterError,
  NFTABLES,
  openNetfilter,
  textAttribute,
  TIMEOUT_MS,
} from './netfilter.ts'

export type NftCounters = {
  /** Packets since the counter was made. @throws Error where there is no such counter, or the kernel does not answer. */
  readonly packets: (name: string) => Promise<number>
  readonly close: () => void
}

const GET_OBJECT = NFTABLES | 19
const INET = 1
const OBJECT = { table: 1, name: 2, type: 3, data: 4 }
const TYPE_COUNTER = Buffer.from([0, 0, 0, 1])
const PACKETS = 2

/** @param table of the family inet. */
export function openNftCounters(table: string): NftCounters {
  const socket = openNetfilter()
  return {
    packets: async (name) => {
      const body = Buffer.concat([
        Buffer.from([INET, 0, 0, 0]),
        textAttribute(OBJECT.table, table),
        textAttribute(OBJECT.name, name),
        attribute(OBJECT.type, TYPE_COUNTER),
      ])
      const [[answer]] = await socket.request(GET_OBJECT, body, { checkError: false, timeout: TIMEOUT_MS })
      const errno = errnoOf(answer)
      if (errno !== 0) throw new NetfilterError(`nftables: cannot read counter ${name} of table ${table}`, errno)
      return readPackets(answer!.data)
    },
    close: () => socket.close(),
  }
}

/** @param data of the answer. @throws Error where it is about no counter. */
export function readPackets(data: Buffer): number {
  const object = new Map(attributes(data.subarray(4)))
  const counter = new Map(attributes(object.get(OBJECT.data) ?? Buffer.alloc(0)))
  const packets = counter.get(PACKETS)
  if (packets?.length !== 8) throw new Error('nftables: an object that is no counter')
  return Number(packets.readBigUInt64BE())
}
