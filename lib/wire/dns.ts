// DNS messages (RFC 1035, EDNS of RFC 6891) at the edge: a query becomes a value, an answer becomes bytes.
//
//   0       2       4       6       8       10      12
//   | id    | flags | qd    | an    | ns    | ar    | question … records …

import { isIPv4, isIPv6 } from 'node:net'
import { writeAddress } from '../address.ts'
import { readName, skipName, writeName } from './dns-name.ts'

/** In the order of their numbers, but for the last, which takes EDNS to say (16). */
export const RCODES = ['NOERROR', 'FORMERR', 'SERVFAIL', 'NXDOMAIN', 'NOTIMP', 'REFUSED', 'BADVERS'] as const
export type Rcode = (typeof RCODES)[number]

/** @param number of the header; what we have no word for is a failure. */
export const rcodeOf = (number: number): Rcode => (number < 6 ? RCODES[number]! : 'SERVFAIL')

export type DnsQuery = {
  readonly id: number
  /** As it was asked, without a dot at the end; `.` is the root. */
  readonly name: string
  /** A mnemonic such as `AAAA`, or `TYPE65` (RFC 3597). */
  readonly type: string
  /** `IN`, or `CLASS3`. */
  readonly class: string
  readonly recursionDesired: boolean
  readonly checkingDisabled: boolean
  /** What the client takes over UDP; undefined without EDNS. */
  readonly edns: Edns | undefined
  /** The question as bytes, and the whole message. */
  readonly question: Uint8Array
  readonly message: Buffer
}
export type Edns = {
  readonly udpBytes: number
  readonly dnssec: boolean
  readonly version: number
  /** Whether there are any; none is known here. */
  readonly options: boolean
}

/** Why a message is no query that can be answered. */
export const MALFORMED = ['short', 'response', 'counts', 'question', 'record', 'edns'] as const
export type Malformed = (typeof MALFORMED)[number]

export type Received =
  | { readonly kind: 'query'; readonly query: DnsQuery }
  /** To be answered by `headerOnly`, if at all. */
  | { readonly kind: 'malformed'; readonly reason: Malformed; readonly answerable: boolean }
  /** An opcode other than QUERY, which is not looked into. */
  | { readonly kind: 'opcode' }

type Data<T extends string, D> = { readonly name: string; readonly type: T; readonly ttl: number; readonly data: D }
export type DnsRecord =
  | Data<'A' | 'AAAA' | 'CNAME' | 'PTR' | 'NS' | 'TXT' | 'HINFO', string>
  | Data<'SRV', { readonly priority: number; readonly weight: number; readonly port: number; readonly target: string }>
  | Data<
      'SOA',
      {
        readonly mname: string
        readonly rname: string
        readonly serial: number
        readonly refresh: number
        readonly retry: number
        readonly expire: number
        readonly minimum: number
      }
    >

export type DnsResponse = {
  readonly rcode: Rcode
  readonly authoritative: boolean
  readonly answers: readonly DnsRecord[]
  /** Whole records of another server, uncompressed, which come behind `answers`. */
  readonly foreign?: readonly Uint8Array[]
  readonly authorities: readonly DnsRecord[]
  /** Left out where they do not fit. */
  readonly additionals: readonly DnsRecord[]
}

export const HEADER_BYTES = 12
export const UDP_BYTES_MIN = 512
/** What passes every path without fragments (DNS flag day 2020). */
export const UDP_BYTES_MAX = 1232
export const MESSAGE_BYTES_MAX = 0xffff
/** A query has one question and at most OPT, TSIG and a few more behind it. */
const QUERY_RECORDS_MAX = 8

export const FLAG = {
  response: 0x8000,
  opcode: 0x7800,
  authoritative: 0x0400,
  truncated: 0x0200,
  recursionDesired: 0x0100,
  recursionAvailable: 0x0080,
  checkingDisabled: 0x0010,
} as const
const DNSSEC_OK = 0x8000
export const TYPE_SOA = 6
export const TYPE_OPT = 41
export const CLASS_IN = 1

const TYPES: Readonly<Record<string, number>> = {
  A: 1,
  NS: 2,
  CNAME: 5,
  SOA: TYPE_SOA,
  PTR: 12,
  HINFO: 13,
  MX: 15,
  TXT: 16,
  AAAA: 28,
  SRV: 33,
  IXFR: 251,
  AXFR: 252,
  ANY: 255,
}
const TYPE_NAMES = new Map(Object.entries(TYPES).map(([name, number]) => [number, name]))
const typeName = (number: number): string => TYPE_NAMES.get(number) ?? `TYPE${number}`
const typeNumber = (name: string): number => TYPES[name] ?? Number(name.slice('TYPE'.length))

export function decodeQuery(bytes: Uint8Array): Received {
  const message = Buffer.from(bytes.buffer, bytes.byteOffset, bytes.byteLength)
  if (message.length < HEADER_BYTES) return malformed('short', false)
  const flags = message.readUInt16BE(2)
  // An answer to an answer could go on for ever.
  if (flags & FLAG.response) return malformed('response', false)
  if (flags & FLAG.opcode) return { kind: 'opcode' }
  const additionals = message.readUInt16BE(10)
  const records = message.readUInt16BE(6) + message.readUInt16BE(8) + additionals
  if (message.readUInt16BE(4) !== 1 || records > QUERY_RECORDS_MAX) return malformed('counts', true)
  const named = readName(message, HEADER_BYTES)
  if (named === undefined || named.end + 4 > message.length) return malformed('question', true)
  const questionEnd = named.end + 4
  let edns: Edns | undefined
  let offset = questionEnd
  for (let i = 0; i < records; i++) {
    const start = offset
    offset = skipName(message, start)
    if (!(offset + 10 <= message.length)) return malformed('record', true)
    const end = offset + 10 + message.readUInt16BE(offset + 8)
    if (end > message.length) return malformed('record', true)
    if (message.readUInt16BE(offset) === TYPE_OPT) {
      const misplaced = i < records - additionals || offset !== start + 1 || edns !== undefined
      if (misplaced || !areOptions(message, offset + 10, end)) return malformed('edns', true)
      edns = {
        udpBytes: Math.max(UDP_BYTES_MIN, message.readUInt16BE(offset + 2)),
        dnssec: (message.readUInt16BE(offset + 6) & DNSSEC_OK) !== 0,
        version: message[offset + 5]!,
        options: end > offset + 10,
      }
    }
    offset = end
  }
  const kind = message.readUInt16BE(named.end + 2)
  const query: DnsQuery = {
    id: message.readUInt16BE(0),
    name: named.name,
    type: typeName(message.readUInt16BE(named.end)),
    class: kind === CLASS_IN ? 'IN' : `CLASS${kind}`,
    recursionDesired: (flags & FLAG.recursionDesired) !== 0,
    checkingDisabled: (flags & FLAG.checkingDisabled) !== 0,
    edns,
    question: message.subarray(HEADER_BYTES, questionEnd),
    message,
  }
  return { kind: 'query', query }
}

const malformed = (reason: Malformed, answerable: boolean): Received => ({ kind: 'malformed', reason, answerable })

function areOptions(message: Buffer, start: number, end: number): boolean {
  let offset = start
  while (offset + 4 <= end) offset += 4 + message.readUInt16BE(offset + 2)
  return offset === end
}

/** The answer to what cannot be read any further: its id, opcode and wish for recursion. */
export function headerOnly(bytes: Uint8Array, rcode: 'FORMERR' | 'NOTIMP' | 'SERVFAIL'): Buffer {
  const header = Buffer.alloc(HEADER_BYTES)
  header.set(bytes.subarray(0, 4))
  header.writeUInt16BE(
    FLAG.response | (header.readUInt16BE(2) & (FLAG.opcode | FLAG.recursionDesired)) | RCODES.indexOf(rcode),
    2,
  )
  return header
}

/** The most UDP bytes that a client of this query takes and paths carry. */
export const udpBytesFor = ({ edns }: DnsQuery): number => Math.min(UDP_BYTES_MAX, edns?.udpBytes ?? UDP_BYTES_MIN)

const OPT_BYTES = 11
/** Where a message is put together before it is copied out. */
const scratch = Buffer.allocUnsafe(MESSAGE_BYTES_MAX)

/**
 * @param maxBytes answers that do not fit are left out and the message is marked as truncated.
 * @throws RangeError for a record whose name is none.
 */
export function encodeResponse(query: DnsQuery, response: DnsResponse, maxBytes: number): Buffer {
  const limit = maxBytes - (query.edns === undefined ? 0 : OPT_BYTES)
  const names: Names = { asked: query.name, written: new Map() }
  scratch.set(query.question, HEADER_BYTES)
  let offset = HEADER_BYTES + query.question.length
  let truncated = false
  const put = (next: number, needed: boolean): boolean => {
    if (next <= limit) offset = next
    else truncated ||= needed
    return next <= limit
  }
  const add = (records: readonly DnsRecord[], needed: boolean): number => {
    let count = 0
    for (const record of records) {
      const next = offset + RECORD_BYTES_MAX > MESSAGE_BYTES_MAX ? Infinity : writeRecord(record, offset, names)
      if (!put(next, needed)) break
      count++
    }
    return count
  }
  let answers = add(response.answers, true)
  for (const record of truncated ? [] : (response.foreign ?? [])) {
    if (!put(offset + record.length, true)) break
    scratch.set(record, offset - record.length)
    answers++
  }
  const authorities = truncated ? 0 : add(response.authorities, true)
  const additionals = truncated ? 0 : add(response.additionals, false)
  if (query.edns !== undefined) offset = writeOpt(query.edns, response.rcode === 'BADVERS', offset)

  const rcode = response.rcode === 'BADVERS' ? 0 : RCODES.indexOf(response.rcode)
  const flags =
    FLAG.response |
    (response.authoritative ? FLAG.authoritative : 0) |
    (truncated ? FLAG.truncated : 0) |
    (query.recursionDesired ? FLAG.recursionDesired : 0) |
    FLAG.recursionAvailable |
    (query.checkingDisabled ? FLAG.checkingDisabled : 0) |
    rcode
  scratch.writeUInt16BE(query.id, 0)
  scratch.writeUInt16BE(flags, 2)
  scratch.writeUInt16BE(1, 4)
  scratch.writeUInt16BE(answers, 6)
  scratch.writeUInt16BE(authorities, 8)
  scratch.writeUInt16BE(additionals + (query.edns === undefined ? 0 : 1), 10)
  return Buffer.from(scratch.subarray(0, offset))
}

/** Our own UDP size, the client's DO bit (RFC 3225), no options. */
function writeOpt({ dnssec }: Edns, badVersion: boolean, start: number): number {
  scratch[start] = 0
  scratch.writeUInt16BE(TYPE_OPT, start + 1)
  scratch.writeUInt16BE(UDP_BYTES_MAX, start + 3)
  scratch.writeUInt16BE(badVersion ? 0x0100 : 0, start + 5)
  scratch.writeUInt16BE(dnssec ? DNSSEC_OK : 0, start + 7)
  scratch.writeUInt16BE(0, start + 9)
  return start + OPT_BYTES
}

/** Its own name, its fixed part, and two names of an SOA. */
const RECORD_BYTES_MAX = 1024
/** An offset that a pointer can hold. */
const POINTER_MAX = 0x3fff

/** Where names stand that a pointer may lead to: those written before, and the question's with all that it ends in. */
type Names = { readonly asked: string; readonly written: Map<string, number> }

/** @returns the offset behind it. */
function writeRecord(record: DnsRecord, start: number, names: Names): number {
  const fixed = writeSharedName(record.name, start, names)
  scratch.writeUInt16BE(typeNumber(record.type), fixed)
  scratch.writeUInt16BE(CLASS_IN, fixed + 2)
  scratch.writeUInt32BE(record.ttl, fixed + 4)
  const end = writeData(record, fixed + 10, names)
  scratch.writeUInt16BE(end - fixed - 10, fixed + 8)
  return end
}

function writeSharedName(name: string, start: number, names: Names): number {
  const known = names.written.get(name) ?? offsetInQuestion(name, names.asked)
  if (known === undefined || name === '.') return writeNewName(name, start, names)
  return scratch.writeUInt16BE(0xc000 | known, start)
}

/** A dot of the text is the length of a label in the bytes, so that both have one offset, but for escaped labels. */
function offsetInQuestion(name: string, asked: string): number | undefined {
  if (name === asked) return HEADER_BYTES
  const rest = asked.length - name.length
  if (rest < 2 || asked.charCodeAt(rest - 1) !== DOT || !asked.endsWith(name) || asked.includes('\\')) return undefined
  return HEADER_BYTES + rest
}
const DOT = 0x2e

function writeNewName(name: string, start: number, { written }: Names): number {
  if (start <= POINTER_MAX && !written.has(name)) written.set(name, start)
  return writeName(name, scratch, start)
}

function writeData(record: DnsRecord, start: number, names: Names): number {
  switch (record.type) {
    case 'A':
      if (!isIPv4(record.data)) throw new RangeError(`${record.data} is no IPv4 address`)
      writeAddress(record.data, 4, scratch, start)
      return start + 4
    case 'AAAA':
      if (!isIPv6(record.data)) throw new RangeError(`${record.data} is no IPv6 address`)
      writeAddress(record.data, 6, scratch, start)
      return start + 16
    case 'CNAME':
    case 'PTR':
    case 'NS':
      return writeSharedName(record.data, start, names)
    case 'TXT':
      return writeString(record.data, start)
    case 'HINFO':
      return writeString('', writeString(record.data, start))
    case 'SRV': {
      const { priority, weight, port, target } = record.data
      scratch.writeUInt16BE(priority, start)
      scratch.writeUInt16BE(weight, start + 2)
      scratch.writeUInt16BE(port, start + 4)
      // Not as a pointer (RFC 2782), but others may point to it.
      return writeNewName(target, start + 6, names)
    }
    case 'SOA': {
      const { mname, rname, serial, refresh, retry, expire, minimum } = record.data
      let offset = writeSharedName(rname, writeSharedName(mname, start, names), names)
      for (const number of [serial, refresh, retry, expire, minimum]) offset = scratch.writeUInt32BE(number, offset)
      return offset
    }
  }
}

/** A character-string; at most 255 bytes, of which ours are far below. */
function writeString(text: string, start: number): number {
  scratch[start] = text.length
  return start + 1 + scratch.write(text, start + 1, 'latin1')
}

/** A query of our own under this id, with nothing of the client's but what was asked and in which way. */
export function encodeQuery(
  id: number,
  { question, recursionDesired, checkingDisabled, edns }: Omit<DnsQuery, 'id' | 'message'>,
): Buffer {
  scratch.writeUInt16BE(id, 0)
  scratch.writeUInt16BE(
    (recursionDesired ? FLAG.recursionDesired : 0) | (checkingDisabled ? FLAG.checkingDisabled : 0),
    2,
  )
  scratch.writeUInt16BE(1, 4)
  scratch.writeUInt32BE(0, 6)
  scratch.writeUInt16BE(edns === undefined ? 0 : 1, 10)
  scratch.set(question, HEADER_BYTES)
  let end = HEADER_BYTES + question.length
  if (edns !== undefined) end = writeOpt(edns, false, end)
  return Buffer.from(scratch.subarray(0, end))
}

/** A query for another name in the way of this one; undefined for what is no name. */
export function queryFor(name: string, like: Omit<DnsQuery, 'name' | 'question' | 'message'>): DnsQuery | undefined {
  const bytes = Buffer.alloc(256 + 4)
  try {
    const end = writeName(name, bytes, 0)
    bytes.writeUInt16BE(typeNumber(like.type), end)
    bytes.writeUInt16BE(CLASS_IN, end + 2)
    const question = bytes.subarray(0, end + 4)
    return { ...like, name, question, message: encodeQuery(like.id, { ...like, name, question }) }
  } catch {
    return undefined
  }
}
