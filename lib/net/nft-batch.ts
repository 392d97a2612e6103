// A transaction of nftables in the bytes of netlink: elements of sets and maps, and messages that others have made.
//
//   BATCH_BEGIN, message, message, …, BATCH_END; each: netlink header, nfgenmsg, attributes (lib/net/netfilter.ts)
//   header:   u32 length, u16 type, u16 flags, u32 sequence, u32 port
//   nfgenmsg: u8 family, u8 version 0, u16 0; of BEGIN and END: 0, 0, u16 subsystem, big-endian
//   message:  TABLE name, SET name, ELEMENTS { ELEM { KEY { VALUE }, DATA { VALUE or VERDICT }, TIMEOUT u64 ms }, … }
//   VERDICT:  { CODE i32, CHAIN name }
//
// Numbers in attributes are big-endian. Of keys and values that are put together of several, each is padded to 4 bytes.

import type { Family } from '../cidr.ts'
import { NESTED, NFTABLES } from './netfilter.ts'
import { AF } from './sockaddr.ts'

export type Verdict = { readonly kind: 'drop' } | { readonly kind: 'goto'; readonly chain: string }
export type Element = {
  readonly key: Uint8Array
  /** Absent of a set. */
  readonly value?: Uint8Array | Verdict
  readonly timeoutMs?: number
}
export type ElementChange = {
  /** To add one that is there, with the same value, is no error and changes nothing. */
  readonly kind: 'add' | 'delete'
  /** Of the table. */
  readonly family: Family
  readonly table: string
  readonly set: string
  readonly elements: readonly Element[]
}
/** Any other change, such as those of lib/net/nft-table.ts. */
export type NftMessage = {
  readonly kind: 'message'
  readonly type: number
  readonly family: Family
  /** It may make what is not there yet; a rule comes behind those of its chain. */
  readonly creates: boolean
  /** Attributes. */
  readonly body: Uint8Array
}

/** Sequence numbers stay zero: one batch is under way at a time, and all that is said of it is read. */
export const HEADER = { bytes: 16, length: 0, type: 4, flags: 6 } as const
const TYPE = { begin: 0x10, end: 0x11, add: NFTABLES | 12, delete: NFTABLES | 14 } as const
const FLAGS = { request: 1, ack: 4, create: 0x400, append: 0x800 }
const LIST = { table: 1, set: 2, elements: 3 }
const LIST_ELEMENT = 1
const ELEMENT = { key: 1, data: 2, timeout: 4 }
const DATA = { value: 1, verdict: 2 }
const VERDICT = { code: 1, chain: 2 }
const CODE = { drop: 0, goto: -4 }
/** The list of a message has a length of 16 bits; an element with the names of its chain is far smaller than the rest. */
const LIST_BYTES_MAX = 0xf000

/** @param changes in their order, with one message or element at least. */
export function encodeBatch(changes: readonly (ElementChange | NftMessage)[]): Buffer {
  const writer = new Writer()
  writer.message(TYPE.begin, 0, 0, NFTABLES >> 8)
  for (const change of changes) {
    if (change.kind === 'message') {
      writer.message(change.type, change.creates ? FLAGS.create | FLAGS.append : 0, AF[change.family], 0)
      writer.raw(change.body)
    } else for (let at = 0; at < change.elements.length;) at = writeChange(writer, change, at)
  }
  writer.message(TYPE.end, 0, 0, NFTABLES >> 8)
  return writer.bytes()
}

/** One message. @returns the first element that it has no room for. */
function writeChange(writer: Writer, { kind, family, table, set, elements }: ElementChange, from: number): number {
  writer.message(TYPE[kind], kind === 'add' ? FLAGS.create : 0, AF[family], 0)
  writer.text(LIST.table, table)
  writer.text(LIST.set, set)
  const list = writer.open(LIST.elements)
  let at = from
  for (; at < elements.length && writer.length - list < LIST_BYTES_MAX; at++) {
    const { key, value, timeoutMs } = elements[at]!
    const element = writer.open(LIST_ELEMENT)
    writer.data(ELEMENT.key, key)
    if (kind === 'add') {
      if (value !== undefined) writer.data(ELEMENT.data, value)
      if (timeoutMs !== undefined) writer.milliseconds(ELEMENT.timeout, timeoutMs)
    }
    writer.close(element)
  }
  writer.close(list)
  return at
}

/** Messages and attributes one after the other, in bytes that grow. */
class Writer {
  length = 0
  #bytes = Buffer.alloc(1024)
  #message = 0
  #lastMessage = 0

  message(type: number, flags: number, family: number, subsystem: number): void {
    this.#endMessage()
    const at = this.#room(HEADER.bytes + 4)
    this.#lastMessage = this.#message
    this.#message = at
    this.#bytes.writeUInt16LE(type, at + HEADER.type)
    this.#bytes.writeUInt16LE(FLAGS.request | flags, at + HEADER.flags)
    this.#bytes[at + HEADER.bytes] = family
    this.#bytes[at + HEADER.bytes + 3] = subsystem
  }
  raw(bytes: Uint8Array): void {
    const at = this.#room(bytes.length)
    this.#bytes.set(bytes, at)
  }
  open(type: number): number {
    return this.#attribute(type | NESTED, 0)
  }
  close(at: number): void {
    this.#bytes.writeUInt16LE(this.length - at, at)
  }
  text(type: number, text: string): void {
    const at = this.#attribute(type, Buffer.byteLength(text) + 1)
    this.#bytes.write(text, at + 4)
  }
  data(type: number, value: Uint8Array | Verdict): void {
    const data = this.open(type)
    if (value instanceof Uint8Array) {
      const at = this.#attribute(DATA.value, value.length)
      this.#bytes.set(value, at + 4)
    } else {
      const verdict = this.open(DATA.verdict)
      const at = this.#attribute(VERDICT.code, 4)
      this.#bytes.writeInt32BE(CODE[value.kind], at + 4)
      if (value.kind === 'goto') this.text(VERDICT.chain, value.chain)
      this.close(verdict)
    }
    this.close(data)
  }
  milliseconds(type: number, value: number): void {
    const at = this.#attribute(type, 8)
    this.#bytes.writeBigUInt64BE(BigInt(value), at + 4)
  }

  /** All of it; what is before the end of the batch is acknowledged. */
  bytes(): Buffer {
    this.#endMessage()
    this.#bytes[this.#lastMessage + HEADER.flags]! |= FLAGS.ack
    return this.#bytes.subarray(0, this.length)
  }

  #endMessage(): void {
    if (this.length > 0) this.#bytes.writeUInt32LE(this.length - this.#message, this.#message + HEADER.length)
  }
  #attribute(type: number, bytes: number): number {
    const at = this.#room(4 + bytes)
    this.#bytes.writeUInt16LE(4 + bytes, at)
    this.#bytes.writeUInt16LE(type, at + 2)
    return at
  }
  /** @returns where so many bytes of zero are, padded to 4; the bytes may be others after it. */
  #room(bytes: number): number {
    const at = this.length
    this.length += (bytes + 3) & ~3
    if (this.length > this.#bytes.length) {
      const grown = Buffer.alloc(2 ** Math.ceil(Math.log2(this.length)))
      this.#bytes.copy(grown)
      this.#bytes = grown
    }
    return at
  }
}
