// Answers of other servers: checked and passed on as they are, with only their id, the spelling of the name and their TTLs
// rewritten; or taken apart into records.

import { FLAG, HEADER_BYTES, MESSAGE_BYTES_MAX, TYPE_OPT, TYPE_SOA, type DnsQuery } from './dns.ts'
import { expandName, skipName } from './dns-name.ts'

export type ForeignResponse = {
  readonly message: Buffer
  readonly rcode: number
  readonly truncated: boolean
  readonly answers: number
  /** Where the TTLs stand, and the lowest; for an answer without records what its SOA allows (RFC 2308). */
  readonly ttlOffsets: readonly number[]
  readonly ttlSeconds: number
}

/** More records than this in one message are a mistake or an attack. */
const RECORDS_MAX = 4096
/** TTLs have 31 bits; with the highest set they are 0 (RFC 2181 §8). */
const TTL_MAX = 0x7fffffff

/** Reads an answer to that query; undefined if it is none: another id, another question, cut short. */
export function readResponse(bytes: Uint8Array, id: number, query: DnsQuery): ForeignResponse | undefined {
  const message = Buffer.from(bytes.buffer, bytes.byteOffset, bytes.byteLength)
  if (message.length < HEADER_BYTES || message.length > MESSAGE_BYTES_MAX || message.readUInt16BE(0) !== id)
    return undefined
  const flags = message.readUInt16BE(2)
  if (!(flags & FLAG.response) || flags & FLAG.opcode) return undefined
  if (message.readUInt16BE(4) !== 1 || !sameQuestion(message, query.question)) return undefined
  const answers = message.readUInt16BE(6)
  const records = answers + message.readUInt16BE(8) + message.readUInt16BE(10)
  if (records > RECORDS_MAX) return undefined
  const truncated = (flags & FLAG.truncated) !== 0
  const rcode = flags & 15
  const ttlOffsets: number[] = []
  let ttlSeconds = Infinity
  let offset = HEADER_BYTES + query.question.length
  for (let i = 0; i < records; i++) {
    offset = skipName(message, offset)
    const end = offset + 10 <= message.length ? offset + 10 + message.readUInt16BE(offset + 8) : NaN
    if (!(end <= message.length))
      return truncated ? { message, rcode, truncated, answers: 0, ttlOffsets: [], ttlSeconds: 0 } : undefined
    const type = message.readUInt16BE(offset)
    if (type !== TYPE_OPT) {
      ttlOffsets.push(offset + 4)
      ttlSeconds = Math.min(ttlSeconds, ttlAt(message, offset + 4))
      // An SOA among the authorities says for how long something is not there.
      if (type === TYPE_SOA && i >= answers && end - offset >= 10 + 22)
        ttlSeconds = Math.min(ttlSeconds, ttlAt(message, end - 4))
    }
    offset = end
  }
  return {
    message,
    rcode,
    truncated,
    answers,
    ttlOffsets,
    ttlSeconds: ttlSeconds === Infinity ? 0 : ttlSeconds,
  }
}

function ttlAt(message: Buffer, offset: number): number {
  const seconds = message.readUInt32BE(offset)
  return seconds > TTL_MAX ? 0 : seconds
}

/** The same answer for another client: its id, its spelling of the name, TTLs lowered or set. */
export function adaptResponse(response: ForeignResponse, query: DnsQuery, ttl: (seconds: number) => number): Buffer {
  const message = Buffer.from(response.message)
  message.writeUInt16BE(query.id, 0)
  message.set(query.question, HEADER_BYTES)
  for (const offset of response.ttlOffsets) message.writeUInt32BE(ttl(ttlAt(message, offset)), offset)
  return message
}

/** The records of an answer that a client of an alias needs as well, uncompressed; those that cannot be read left out. */
export function answersOf({ message, answers }: ForeignResponse, { question }: DnsQuery): readonly Uint8Array[] {
  const records: Uint8Array[] = []
  let offset = HEADER_BYTES + question.length
  for (let i = 0; i < answers; i++) {
    const name = expandName(message, offset)
    const fixed = skipName(message, offset)
    const end = fixed + 10 + message.readUInt16BE(fixed + 8)
    const data = name && expandData(message, message.readUInt16BE(fixed), fixed + 10, end)
    if (name !== undefined && data !== undefined) {
      const record = Buffer.concat([name, message.subarray(fixed, fixed + 10), ...data])
      record.writeUInt16BE(record.length - name.length - 10, name.length + 8)
      records.push(record)
    }
    offset = end
  }
  return records
}

/** How many bytes stand before the names in the data of the types that may point elsewhere (RFC 3597 §4), and how many names. */
const NAMES_IN: ReadonlyMap<number, readonly [before: number, names: number]> = new Map([
  [2, [0, 1]],
  [5, [0, 1]],
  [6, [0, 2]],
  [12, [0, 1]],
  [15, [2, 1]],
  [33, [6, 1]],
])

/** The parts of the data without pointers. */
function expandData(message: Buffer, type: number, start: number, end: number): readonly Uint8Array[] | undefined {
  const [before, names] = NAMES_IN.get(type) ?? [0, 0]
  const parts: Uint8Array[] = [message.subarray(start, start + before)]
  let offset = start + before
  for (let i = 0; i < names; i++) {
    const name = offset < end ? expandName(message, offset) : undefined
    if (name === undefined) return undefined
    parts.push(name)
    offset = skipName(message, offset)
  }
  return offset > end ? undefined : [...parts, message.subarray(offset, end)]
}

/** Names are equal whatever their case (RFC 4343); lengths of labels are below any letter. */
function sameQuestion(message: Buffer, question: Uint8Array): boolean {
  if (message.length < HEADER_BYTES + question.length) return false
  const nameEnd = question.length - 4
  for (let i = 0; i < question.length; i++) {
    const a = message[HEADER_BYTES + i]!
    const b = question[i]!
    if (i < nameEnd ? lower(a) !== lower(b) : a !== b) return false
  }
  return true
}

const lower = (byte: number) => (byte >= 0x41 && byte <= 0x5a ? byte + 32 : byte)
