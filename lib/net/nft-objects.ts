// Whether tables and chains are in nftables, asked of the kernel by their names: to list what others have there takes nft
// minutes where they have much.
//
//   nfgenmsg: u8 family, u8 version 0, u16 0 | the table's name, or the table's and the chain's, each ending in zero

import type { Family } from '../cidr.ts'
import { ENOENT, errnoOf, NetfilterError, NFTABLES, openNetfilter, textAttribute, TIMEOUT_MS } from './netfilter.ts'
import { AF } from './sockaddr.ts'

export type NftObject = { readonly family: Family; readonly table: string; readonly chain?: string }

const GET_TABLE = NFTABLES | 1
const GET_CHAIN = NFTABLES | 4
const TABLE_NAME = 1
const CHAIN = { table: 1, name: 3 }

/** @returns those that are there. @throws Error with what the kernel said. */
export async function presentIn<T extends NftObject>(wanted: readonly T[]): Promise<readonly T[]> {
  const socket = openNetfilter()
  try {
    const present: T[] = []
    for (const object of wanted) {
      const type = object.chain === undefined ? GET_TABLE : GET_CHAIN
      const [[answer]] = await socket.request(type, encode(object), { checkError: false, timeout: TIMEOUT_MS })
      const errno = errnoOf(answer)
      if (errno === 0) present.push(object)
      else if (errno !== ENOENT) throw new NetfilterError(`nftables: cannot look for table ${object.table}`, errno)
    }
    return present
  } finally {
    socket.close()
  }
}

function encode({ family, table, chain }: NftObject): Buffer {
  const names =
    chain === undefined
      ? [textAttribute(TABLE_NAME, table)]
      : [textAttribute(CHAIN.table, table), textAttribute(CHAIN.name, chain)]
  return Buffer.concat([Buffer.from([AF[family], 0, 0, 0]), ...names])
}
