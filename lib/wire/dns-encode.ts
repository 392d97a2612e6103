// DNS messages as bytes: answers, and questions of our own. Names that were written before are pointed to (RFC 1035 §4.1.4).

import { isIPv4, isIPv6 } from 'node:net'
import { writeAddress } from '../address.ts'
import {
  CLASS_IN,
  DNSSEC_OK,
  FLAG,
  HEADER_BYTES,
  MESSAGE_BYTES_MAX,
  RCODES,
  TYPE_OPT,
  typeNumber,
  UDP_BYTES_MAX,
  type DnsQuery,
  type DnsRecord,
  type DnsResponse,
  type Edns,
} from './dns.ts'
import { writeName } from './dns-name.ts'

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
  let truncated = response.truncated ?? false
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
