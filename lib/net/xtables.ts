// Chains of iptables' older tables (iptables-legacy), which nftables does not show. They are read as the kernel hands them
// out, a table whole: a chain begins with an entry whose target ERROR has its name, ending in zero.
//
//   struct ipt_getinfo         name 32 | hooks … | entries u32 at 76 | size u32 at 80
//   struct ipt_get_entries     name 32 | size u32 | entries at 40

import { readFileSync } from 'node:fs'
import type * as Ffi from 'node:ffi'
import type { Family } from '../cidr.ts'
import { loadFfi } from './ffi.ts'

const NAME_BYTES = 32
const INFO = { bytes: 84, size: 80 }
const ENTRIES = { size: 32, at: 40 }
const SOCK_RAW = 3
const IPPROTO_RAW = 255
/** Domain, level and the file of the tables in use. */
const SOCKETS: Readonly<Record<Family, { readonly domain: number; readonly level: number; readonly file: string }>> = {
  4: { domain: 2, level: 0, file: '/proc/net/ip_tables_names' },
  6: { domain: 10, level: 41, file: '/proc/net/ip6_tables_names' },
}
const GET_INFO = 64
const GET_ENTRIES = 65
/** A table that changes between the question for its size and that for it is asked again. */
const TRIES = 3

const SIGNATURES = {
  socket: { return: 'int32', arguments: ['int32', 'int32', 'int32'] },
  getsockopt: { return: 'int32', arguments: ['int32', 'int32', 'int32', 'buffer', 'buffer'] },
  close: { return: 'int32', arguments: ['int32'] },
} as const satisfies Ffi.FunctionDefinitions
let libc: Ffi.DynamicLibraryResult<typeof SIGNATURES>['functions'] | undefined

/** @returns those of the names that the table has; none where nobody uses it, or it cannot be read. Costs a copy of it. */
export function legacyChains(family: Family, table: string, names: readonly string[]): readonly string[] {
  const { domain, level, file } = SOCKETS[family]
  if (!tablesOf(file).includes(table)) return []
  libc ??= loadFfi().dlopen(null, SIGNATURES).functions
  const socket = libc.socket(domain, SOCK_RAW, IPPROTO_RAW)
  if (socket < 0) return []
  try {
    for (let i = 0; i < TRIES; i++) {
      const info = ask(socket, level, GET_INFO, named(table, INFO.bytes))
      if (info === undefined) return []
      const size = info.readUInt32LE(INFO.size)
      const entries = named(table, ENTRIES.at + size)
      entries.writeUInt32LE(size, ENTRIES.size)
      const found = ask(socket, level, GET_ENTRIES, entries)
      if (found !== undefined) return names.filter((name) => found.includes(`${name}\0`, ENTRIES.at))
    }
    return []
  } finally {
    libc.close(socket)
  }
}

/** To ask for a table that nobody uses would load its module. */
function tablesOf(file: string): readonly string[] {
  try {
    return readFileSync(file, 'utf8').split('\n')
  } catch {
    return []
  }
}

function named(table: string, bytes: number): Buffer {
  const question = Buffer.alloc(bytes)
  question.write(table, 0, NAME_BYTES - 1, 'latin1')
  return question
}

function ask(socket: number, level: number, option: number, answer: Buffer): Buffer | undefined {
  const length = Buffer.alloc(4)
  length.writeUInt32LE(answer.length)
  return libc!.getsockopt(socket, level, option, answer, length) === 0 ? answer : undefined
}
