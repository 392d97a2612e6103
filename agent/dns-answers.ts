// Answers of the zone as bytes, by the bytes of the query behind its id: a query that came before is answered by a look-up, a
// copy and a new id. Addresses are put in a new order each time. All is forgotten when the zone changes.

import { HEADER_BYTES, type DnsQuery, type DnsResponse } from '../lib/wire/dns.ts'

type Entry = {
  readonly message: Buffer
  /** Where the first of several addresses stands, and how many there are; 0 for none to put in order. */
  readonly first: number
  readonly count: number
  /** Bytes of an address. */
  readonly width: number
}

/** In each of two generations: when the younger is full, the older is forgotten. */
const ENTRIES_MAX = 2048
const BYTES_MAX = 1 << 20
/** What an entry takes beside its message and its key, roughly. */
const ENTRY_BYTES = 250
/** Longer ones are rare, and not worth the memory. */
const QUERY_BYTES_MAX = 300
const ANSWER_BYTES_MAX = 4096
/** Pointer to the question's name, type, class, TTL and length, before each address. */
const RECORD_HEAD_BYTES = 12
/** Behind the id. */
const KEY_START = 2

export class DnsAnswers {
  #zone: object | undefined
  #young = new Map<string, Entry>()
  #old = new Map<string, Entry>()
  #youngBytes = 0

  /**
   * @param zone the one that answers now. @param random in [0, 1).
   * @returns a message of the caller's own; undefined where nothing is known.
   */
  find(zone: object, query: Buffer, random: () => number): Buffer | undefined {
    if (zone !== this.#zone || query.length > QUERY_BYTES_MAX || query.length < HEADER_BYTES) return undefined
    const key = query.toString('latin1', KEY_START)
    let entry = this.#young.get(key)
    if (entry === undefined) {
      entry = this.#old.get(key)
      if (entry === undefined) return undefined
      this.#keep(key, entry)
    }
    const { message, first, count, width } = entry
    if (count > 1) shuffle(message, first, count, width, random)
    const copy = Buffer.allocUnsafe(message.length)
    message.copy(copy)
    copy[0] = query[0]!
    copy[1] = query[1]!
    return copy
  }

  /** Keeps what is the same for whoever asks with these bytes, if it is whole. */
  store(zone: object, query: DnsQuery, response: DnsResponse, message: Buffer): void {
    if (query.message.length > QUERY_BYTES_MAX || message.length > ANSWER_BYTES_MAX || query.edns?.options) return
    if (!isWhole(message, response, query)) return
    if (zone !== this.#zone) {
      this.#zone = zone
      this.#young = new Map()
      this.#old = new Map()
      this.#youngBytes = 0
    }
    const { answers } = response
    const key = query.message.toString('latin1', KEY_START)
    if (answers.length <= 1) return this.#keep(key, { message, first: 0, count: 0, width: 0 })
    const width = answers[0]!.type === 'A' ? 4 : 16
    if (!answers.every(({ name, type }) => name === query.name && type === (width === 4 ? 'A' : 'AAAA'))) return
    const first = HEADER_BYTES + query.question.length + RECORD_HEAD_BYTES
    this.#keep(key, { message, first, count: answers.length, width })
  }

  #keep(key: string, entry: Entry): void {
    if (this.#young.size >= ENTRIES_MAX || this.#youngBytes >= BYTES_MAX) {
      this.#old = this.#young
      this.#young = new Map()
      this.#youngBytes = 0
    }
    this.#young.set(key, entry)
    this.#youngBytes += entry.message.length + key.length + ENTRY_BYTES
  }
}

/** Whether nothing was left out. */
function isWhole(
  message: Buffer,
  { truncated, answers, authorities, additionals }: DnsResponse,
  { edns }: DnsQuery,
): boolean {
  if (truncated) return false
  const counts = [answers.length, authorities.length, additionals.length + (edns === undefined ? 0 : 1)]
  return counts.every((count, i) => message.readUInt16BE(6 + 2 * i) === count)
}

/** In place. */
function shuffle(message: Buffer, first: number, count: number, width: number, random: () => number): void {
  const stride = RECORD_HEAD_BYTES + width
  for (let i = count - 1; i > 0; i--) {
    const a = first + i * stride
    const b = first + Math.floor(random() * (i + 1)) * stride
    for (let byte = 0; byte < width; byte += 4) {
      const kept = message.readInt32BE(a + byte)
      message.writeInt32BE(message.readInt32BE(b + byte), a + byte)
      message.writeInt32BE(kept, b + byte)
    }
  }
}
