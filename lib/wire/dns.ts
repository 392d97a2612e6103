// DNS messages (RFC 1035, EDNS of RFC 6891): their values, and how a query becomes one. What becomes bytes is in
// dns-encode.ts.
//
//   0       2       4       6       8       10      12
//   | id    | flags | qd    | an    | ns    | ar    | question … records …

import { readName, skipName } from './dns-name.ts'

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
  /** There is more than what is here, whether that fits or not. */
  readonly truncated?: boolean
  readonly answers: readonly DnsRecord[]
  /** Whole records of another server, uncompressed, which come behind `answers`. */
  readonly foreign?: readonly Uint8Array[]
  readonly authorities: readonly DnsRecord[]
  /** Left out where they do not fit. */
  readonly additionals: readonly DnsRecord[]
}

export const HEADER_BYTES = 12
const UDP_BYTES_MIN = 512
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
export const DNSSEC_OK = 0x8000
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
export const typeNumber = (name: string): number => TYPES[name] ?? Number(name.slice('TYPE'.length))

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
