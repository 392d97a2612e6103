// DNS messages (RFC 1035, EDNS of RFC 6891) at the edge: a query becomes a value, an answer becomes bytes, and messages of
// others are passed on as they are, with only their id and TTLs rewritten. The only user of dns-packet.
//
//   0       2       4       6       8       10      12
//   | id    | flags | qd    | an    | ns    | ar    | question … records …

import packet from 'dns-packet'

export type Rcode = 'NOERROR' | 'FORMERR' | 'SERVFAIL' | 'NXDOMAIN' | 'NOTIMP' | 'REFUSED'
export const RCODES: readonly Rcode[] = ['NOERROR', 'FORMERR', 'SERVFAIL', 'NXDOMAIN', 'NOTIMP', 'REFUSED']

export type DnsQuery = {
  readonly id: number
  readonly opcode: number
  /** As it was asked, without a dot at the end; `.` is the root. */
  readonly name: string
  /** A mnemonic such as `AAAA`, or `UNKNOWN_65`. */
  readonly type: string
  readonly class: string
  readonly recursionDesired: boolean
  readonly checkingDisabled: boolean
  /** What the client takes over UDP; undefined without EDNS. */
  readonly edns: { readonly udpBytes: number; readonly dnssec: boolean } | undefined
  /** The question as bytes, and the whole message. */
  readonly question: Uint8Array
  readonly message: Uint8Array
}

type Data<T extends string, D> = { readonly name: string; readonly type: T; readonly ttl: number; readonly data: D }
export type DnsRecord =
  | Data<'A' | 'AAAA' | 'CNAME' | 'PTR' | 'NS' | 'TXT', string>
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
  readonly authorities: readonly DnsRecord[]
  /** Left out where they do not fit. */
  readonly additionals: readonly DnsRecord[]
}

const HEADER_BYTES = 12
const OPT_BYTES = 11
export const UDP_BYTES_MIN = 512
/** What passes every path without fragments (DNS flag day 2020). */
export const UDP_BYTES_MAX = 1232
/** A query has one question and at most OPT, TSIG and a few more behind it; dns-packet allocates by these counts. */
const ADDITIONALS_MAX = 4

const FLAG = {
  response: 0x8000,
  authoritative: 0x0400,
  truncated: 0x0200,
  recursionDesired: 0x0100,
  recursionAvailable: 0x0080,
}

/** undefined for whatever is no query with one question. */
export function decodeQuery(bytes: Uint8Array): DnsQuery | undefined {
  const message = Buffer.from(bytes.buffer, bytes.byteOffset, bytes.byteLength)
  if (message.length < HEADER_BYTES || message.readUInt16BE(2) & FLAG.response) return undefined
  if (message.readUInt16BE(4) !== 1 || message.readUInt32BE(6) !== 0 || message.readUInt16BE(10) > ADDITIONALS_MAX)
    return undefined
  const questionEnd = skipName(message, HEADER_BYTES) + 4
  if (questionEnd > message.length || Number.isNaN(questionEnd)) return undefined
  let decoded: ReturnType<typeof packet.decode>
  try {
    decoded = packet.decode(message)
  } catch {
    return undefined
  }
  const [question] = decoded.questions
  const opt = decoded.additionals.find(({ type }) => type === 'OPT')
  return {
    id: message.readUInt16BE(0),
    opcode: (message[2]! >> 3) & 15,
    name: question!.name,
    type: question!.type,
    class: question!.class,
    recursionDesired: decoded.flag_rd,
    checkingDisabled: decoded.flag_cd,
    edns: opt && { udpBytes: Math.max(UDP_BYTES_MIN, opt.udpPayloadSize ?? 0), dnssec: opt.flag_do ?? false },
    question: message.subarray(HEADER_BYTES, questionEnd),
    message,
  }
}

/** @param maxBytes answers that do not fit are left out and the message is marked as truncated. */
export function encodeResponse(query: DnsQuery, response: DnsResponse, maxBytes: number): Buffer {
  const parts: Uint8Array[] = []
  let bytes = HEADER_BYTES + query.question.length + (query.edns === undefined ? 0 : OPT_BYTES)
  let truncated = false
  const add = (records: readonly DnsRecord[], needed: boolean): number => {
    let count = 0
    for (const record of records) {
      const encoded = encodeRecord(record, query.name)
      if (bytes + encoded.length > maxBytes) {
        truncated ||= needed
        break
      }
      parts.push(encoded)
      bytes += encoded.length
      count++
    }
    return count
  }
  const answers = add(response.answers, true)
  const authorities = truncated ? 0 : add(response.authorities, true)
  const additionals = truncated ? 0 : add(response.additionals, false)

  const header = Buffer.allocUnsafe(HEADER_BYTES)
  const flags =
    FLAG.response |
    (query.opcode << 11) |
    (response.authoritative ? FLAG.authoritative : 0) |
    (truncated ? FLAG.truncated : 0) |
    (query.recursionDesired ? FLAG.recursionDesired : 0) |
    FLAG.recursionAvailable |
    RCODES.indexOf(response.rcode)
  header.writeUInt16BE(query.id, 0)
  header.writeUInt16BE(flags, 2)
  header.writeUInt16BE(1, 4)
  header.writeUInt16BE(answers, 6)
  header.writeUInt16BE(authorities, 8)
  header.writeUInt16BE(additionals + (query.edns === undefined ? 0 : 1), 10)
  return Buffer.concat([header, query.question, ...parts, ...(query.edns === undefined ? [] : [OPT])], bytes)
}

/** Root name, type 41, our own UDP size, no flags, no options. */
const OPT = Buffer.from([0, 0, 41, UDP_BYTES_MAX >> 8, UDP_BYTES_MAX & 0xff, 0, 0, 0, 0, 0, 0])
/** A pointer to the question's name, which most records have as their own. */
const SAME_NAME = Buffer.from([0xc0, HEADER_BYTES])

function encodeRecord(record: DnsRecord, asked: string): Uint8Array {
  const encoded = packet.answer.encode(record)
  return record.name === asked && asked !== '.'
    ? Buffer.concat([SAME_NAME, encoded.subarray(packet.name.encodingLength(record.name))])
    : encoded
}

/** A query of our own, with EDNS. */
export function encodeQuery(id: number, name: string, type: string): Buffer {
  return packet.encode({
    type: 'query',
    id,
    flags: FLAG.recursionDesired,
    questions: [{ name, type, class: 'IN' }],
    additionals: [{ type: 'OPT', name: '.', udpPayloadSize: UDP_BYTES_MAX, flags: 0, options: [] }],
  })
}

// === messages of others ===

export type ForeignResponse = {
  readonly message: Buffer
  readonly rcode: number
  readonly truncated: boolean
  readonly answers: number
  /** Where the TTLs stand, and the lowest; for an answer without records what its SOA allows (RFC 2308). */
  readonly ttlOffsets: readonly number[]
  readonly ttlSeconds: number
}

const TYPE_SOA = 6
const TYPE_OPT = 41
/** More records than this in one message are a mistake or an attack. */
const RECORDS_MAX = 4096

/** Reads an answer to that query; undefined if it is none: another id, another question, cut short. */
export function readResponse(bytes: Uint8Array, id: number, query: DnsQuery): ForeignResponse | undefined {
  const message = Buffer.from(bytes.buffer, bytes.byteOffset, bytes.byteLength)
  if (message.length < HEADER_BYTES || message.readUInt16BE(0) !== id || !(message.readUInt16BE(2) & FLAG.response))
    return undefined
  if (message.readUInt16BE(4) !== 1 || !sameQuestion(message, query.question)) return undefined
  const answers = message.readUInt16BE(6)
  const records = answers + message.readUInt16BE(8) + message.readUInt16BE(10)
  const truncated = (message.readUInt16BE(2) & FLAG.truncated) !== 0
  const ttlOffsets: number[] = []
  let ttlSeconds = Infinity
  let offset = HEADER_BYTES + query.question.length
  if (records > RECORDS_MAX) return undefined
  for (let i = 0; i < records; i++) {
    offset = skipName(message, offset)
    if (!(offset + 10 <= message.length))
      return truncated
        ? { message, rcode: message[3]! & 15, truncated, answers: 0, ttlOffsets: [], ttlSeconds: 0 }
        : undefined
    const type = message.readUInt16BE(offset)
    const length = message.readUInt16BE(offset + 8)
    const end = offset + 10 + length
    if (end > message.length) return undefined
    if (type !== TYPE_OPT) {
      ttlOffsets.push(offset + 4)
      ttlSeconds = Math.min(ttlSeconds, message.readUInt32BE(offset + 4))
      if (type === TYPE_SOA && answers === 0 && length >= 22)
        ttlSeconds = Math.min(ttlSeconds, message.readUInt32BE(end - 4))
    }
    offset = end
  }
  return {
    message,
    rcode: message[3]! & 15,
    truncated,
    answers,
    ttlOffsets,
    ttlSeconds: ttlSeconds === Infinity ? 0 : ttlSeconds,
  }
}

/** The same answer for another client: its id, its spelling of the name, TTLs lowered or set. */
export function adaptResponse(response: ForeignResponse, query: DnsQuery, ttl: (seconds: number) => number): Buffer {
  const message = Buffer.from(response.message)
  message.writeUInt16BE(query.id, 0)
  message.set(query.question, HEADER_BYTES)
  for (const offset of response.ttlOffsets) message.writeUInt32BE(ttl(message.readUInt32BE(offset)), offset)
  return message
}

/** The records of an answer that a client of an alias needs as well. */
export function answersOf(response: ForeignResponse): readonly DnsRecord[] {
  try {
    return packet.decode(response.message).answers as readonly DnsRecord[]
  } catch {
    return []
  }
}

/** What a client that cannot take the whole over UDP gets: nothing but the hint to ask over TCP. */
export function truncate(message: Buffer, query: DnsQuery): Buffer {
  const end = HEADER_BYTES + query.question.length
  const short = Buffer.from(message.subarray(0, end))
  short.writeUInt16BE(short.readUInt16BE(2) | FLAG.truncated, 2)
  short.fill(0, 6, HEADER_BYTES)
  return short
}

/** Copies a query under another id. */
export function withId(message: Uint8Array, id: number): Buffer {
  const copy = Buffer.from(message)
  copy.writeUInt16BE(id, 0)
  return copy
}

/** The offset behind a name, a pointer being its end; NaN where it runs out of the message. */
function skipName(message: Buffer, offset: number): number {
  while (offset < message.length) {
    const length = message[offset]!
    if (length === 0) return offset + 1
    if ((length & 0xc0) === 0xc0) return offset + 2
    if ((length & 0xc0) !== 0) return NaN
    offset += length + 1
  }
  return NaN
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
