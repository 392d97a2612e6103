// Elements of nft's maps, added and deleted by netlink: a transaction costs a fraction of what nft takes to have one read,
// since nft asks for all tables, chains and sets before each.
//
//   BATCH_BEGIN, message, message, …, BATCH_END; each: netlink header, nfgenmsg, attributes (lib/net/netfilter.ts)
//   header:   u32 length, u16 type, u16 flags, u32 sequence, u32 0
//   nfgenmsg: u8 family, u8 version 0, u16 0; of BEGIN and END: 0, 0, u16 subsystem, big-endian
//   message:  TABLE name, SET name, ELEMENTS { ELEM { KEY { VALUE }, DATA { VALUE }, TIMEOUT u64 ms } }, big-endian
//
// Of keys and values that are put together of several, each is padded to 4 bytes.

import type { NetlinkMessage } from 'netlink'
import { getSystemErrorName } from 'node:util'
import type { Family } from '../cidr.ts'
import { attribute, errnoOf, NFTABLES, openNetfilter, textAttribute, TIMEOUT_MS } from './netfilter.ts'
import { AF } from './sockaddr.ts'

export type ElementChange = {
  /** To add one that is there, with the same value, is no error and changes nothing. */
  readonly kind: 'add' | 'delete'
  /** Of the table. */
  readonly family: Family
  readonly table: string
  readonly map: string
  readonly key: readonly Buffer[]
  readonly value: readonly Buffer[]
  readonly timeoutMs: number
}
/** A transaction; it may be applied again and again. */
export type ElementBatch = {
  readonly bytes: Buffer
  /** Where each message begins, the first and the last included. */
  readonly messages: readonly number[]
}
export type NftElements = {
  /** After those that were asked for before. @throws Error with what the kernel said; then nothing was changed. */
  readonly apply: (batch: ElementBatch) => Promise<void>
  readonly close: () => void
}

const HEADER_BYTES = 16
const HEADER = { length: 0, type: 4, flags: 6, sequence: 8 }
const TYPE = { begin: 0x10, end: 0x11, add: NFTABLES | 12, delete: NFTABLES | 14 } as const
const FLAGS = { request: 1, ack: 4, create: 0x400 }
const LIST = { table: 1, set: 2, elements: 3 }
const ELEMENT = { key: 1, data: 2, timeout: 4 }
const LIST_ELEMENT = 1
const VALUE = 1
const NESTED = 0x8000

/** Does not keep the process alive but while it waits for an answer. */
export function openNftElements(): NftElements {
  const socket = openNetfilter()
  let onAnswer = (_answer: NetlinkMessage): void => undefined
  let last: Promise<unknown> = Promise.resolve()
  socket.on('message', (answers) => {
    for (const answer of answers) onAnswer(answer)
  })

  const transact = async ({ bytes, messages }: ElementBatch): Promise<void> => {
    const { promise, resolve, reject } = Promise.withResolvers<void>()
    const sequences = messages.map((start) => {
      const sequence = socket.generateSeq()
      bytes.writeUInt32LE(sequence, start + HEADER.sequence)
      return sequence
    })
    // Errors come in the order of the messages, so what is said of the last change is said of all.
    const acknowledged = sequences.at(-2)
    const timer = setTimeout(() => reject(new Error('nftables: the kernel does not answer')), TIMEOUT_MS)
    onAnswer = (answer) => {
      if (!sequences.includes(answer.seq)) return
      const errno = errnoOf(answer)
      if (errno !== 0) reject(new Error(`nftables: elements cannot be changed: ${getSystemErrorName(-errno)}`))
      else if (answer.seq === acknowledged) resolve()
    }
    socket.socket.send(bytes, {}, (error) => {
      if (error !== undefined) reject(error)
    })
    await promise.finally(() => clearTimeout(timer))
  }
  return {
    apply: (batch) => {
      const result = last.then(() => transact(batch))
      last = result.catch(() => undefined)
      return result
    },
    close: () => socket.close(),
  }
}

/** @param changes in their order; one at least. */
export function encodeBatch(changes: readonly ElementChange[]): ElementBatch {
  const subsystem = Buffer.from([0, 0, 0, NFTABLES >> 8])
  const flagsOf = ({ kind }: ElementChange, i: number): number =>
    (kind === 'add' ? FLAGS.create : 0) | (i === changes.length - 1 ? FLAGS.ack : 0)
  const messages = [
    message(TYPE.begin, 0, subsystem),
    ...changes.map((change, i) => message(TYPE[change.kind], flagsOf(change, i), encodeChange(change))),
    message(TYPE.end, 0, subsystem),
  ]
  let start = 0
  const starts = messages.map(({ length }) => (start += length) - length)
  return { bytes: Buffer.concat(messages), messages: starts }
}

function message(type: number, flags: number, body: Buffer): Buffer {
  const bytes = Buffer.concat([Buffer.alloc(HEADER_BYTES), body])
  bytes.writeUInt32LE(bytes.length, HEADER.length)
  bytes.writeUInt16LE(type, HEADER.type)
  bytes.writeUInt16LE(FLAGS.request | flags, HEADER.flags)
  return bytes
}

function encodeChange({ kind, family, table, map, key, value, timeoutMs }: ElementChange): Buffer {
  const timeout = Buffer.alloc(8)
  timeout.writeBigUInt64BE(BigInt(timeoutMs))
  const data = [
    attribute(ELEMENT.data | NESTED, attribute(VALUE, ...value.map(padded))),
    attribute(ELEMENT.timeout, timeout),
  ]
  const element = [
    attribute(ELEMENT.key | NESTED, attribute(VALUE, ...key.map(padded))),
    ...(kind === 'add' ? data : []),
  ]
  return Buffer.concat([
    Buffer.from([AF[family], 0, 0, 0]),
    textAttribute(LIST.table, table),
    textAttribute(LIST.set, map),
    attribute(LIST.elements | NESTED, attribute(LIST_ELEMENT | NESTED, ...element)),
  ])
}

function padded(field: Buffer): Buffer {
  const whole = Buffer.alloc((field.length + 3) & ~3)
  field.copy(whole)
  return whole
}
