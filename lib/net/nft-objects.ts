// Whether tables and chains are in nftables, asked of the kernel by their names: to list what others have there takes nft
// minutes where they have much.
//
//   nfgenmsg: u8 family, u8 version 0, u16 0 | the table's name, or the table's and the chain's, each ending in zero

import { createNetlink, parseError, Protocol } from 'netlink'
import type { Family } from '../cidr.ts'
import { attribute } from './conntrack.ts'

export type NftObject = { readonly family: Family; readonly table: string; readonly chain?: string }

const SUBSYSTEM = 10 << 8
const GET_TABLE = SUBSYSTEM | 1
const GET_CHAIN = SUBSYSTEM | 4
const TABLE_NAME = 1
const CHAIN = { table: 1, name: 3 }
const AF: Readonly<Record<Family, number>> = { 4: 2, 6: 10 }
const MESSAGE_ERROR = 2
const ENOENT = -2
const TIMEOUT_MS = 2_000

/** @returns those that are there. @throws Error with what the kernel said. */
export async function presentIn<T extends NftObject>(wanted: readonly T[]): Promise<readonly T[]> {
  const socket = createNetlink(Protocol.NETFILTER, { ref: false } as Parameters<typeof createNetlink>[1])
  socket.on('error', () => undefined)
  try {
    const present: T[] = []
    for (const object of wanted) {
      const type = object.chain === undefined ? GET_TABLE : GET_CHAIN
      const [[answer]] = await socket.request(type, encode(object), { checkError: false, timeout: TIMEOUT_MS })
      const errno = answer?.type === MESSAGE_ERROR ? parseError(answer.data, answer.flags).errno : 0
      if (errno === 0) present.push(object)
      else if (errno !== ENOENT) throw new Error(`nftables: cannot look for table ${object.table}: errno ${-errno}`)
    }
    return present
  } finally {
    socket.close()
  }
}

function encode({ family, table, chain }: NftObject): Buffer {
  const names =
    chain === undefined
      ? [attribute(TABLE_NAME, [zeroEnded(table)])]
      : [attribute(CHAIN.table, [zeroEnded(table)]), attribute(CHAIN.name, [zeroEnded(chain)])]
  return Buffer.concat([Buffer.from([AF[family], 0, 0, 0]), ...names])
}

const zeroEnded = (text: string) => Buffer.from(`${text}\0`)
