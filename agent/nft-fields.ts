// Elements of the agent's sets and maps, from nft's words to the bytes that the kernel has: each field padded to 4.
//
//   address   4 or 16 bytes          protocol  u8
//   port      u16, big-endian        slot      u32, in the byte order of the host, as a number of `numgen` is
//
// Those of prefixes are left to nft, which knows how intervals lie beside each other.

import { writeAddress } from '../lib/address.ts'
import type { Family } from '../lib/cidr.ts'
import type { Element, Verdict } from '../lib/net/nft-batch.ts'
import type { Target } from './balance.ts'
import { classOf, type OBJECTS } from './nft.ts'

type Field = 'address' | 'protocol' | 'port' | 'slot'
type Shape = { readonly key: readonly Field[]; readonly value?: 'verdict' | readonly Field[] }

const BY_PORT = ['protocol', 'port'] as const
const BY_ADDRESS = ['address', ...BY_PORT] as const
const VERDICTS: Shape = { key: BY_ADDRESS, value: 'verdict' }
const PORT_VERDICTS: Shape = { key: BY_PORT, value: 'verdict' }
const TARGET = ['address', 'port'] as const

/** Of agent/takeover.ts. */
const TAKEOVER = { takeover: { key: BY_ADDRESS, value: TARGET }, apart: { key: BY_ADDRESS } }
/** undefined for prefixes. */
const SHAPES: Readonly<Record<(typeof OBJECTS)[number] | keyof typeof TAKEOVER, Shape | undefined>> = {
  ...TAKEOVER,
  services: VERDICTS,
  inside: VERDICTS,
  outside: VERDICTS,
  restricted: VERDICTS,
  'source-ranges': undefined,
  'cluster-ips': { key: ['address'] },
  'node-ports': PORT_VERDICTS,
  'node-inside': PORT_VERDICTS,
  'node-outside': PORT_VERDICTS,
  'node-addresses': { key: ['address'] },
  hairpin: { key: ['address', 'address'] },
  mesh: undefined,
  remote: undefined,
  'own-pods': undefined,
}
const ENDPOINTS: Shape = { key: [...BY_ADDRESS, 'slot'], value: TARGET }
const NODE_ENDPOINTS: Shape = { key: [...BY_PORT, 'slot'], value: TARGET }

const PROTOCOLS: Readonly<Record<string, number>> = { tcp: 6, udp: 17, sctp: 132 }

/** @returns what reads elements of that object, or undefined where nft must write them. */
export function elementReader(object: string, family: Family): ((key: string, value: string) => Element) | undefined {
  const shape = shapeOf(object)
  if (shape === undefined) return undefined
  const { key: fields, value: kind } = shape
  return (key, value) => {
    const element = { key: bytesOf(key, fields, family) }
    // Whoever deletes an element need not know its value.
    if (kind === undefined || value === '') return element
    return { ...element, value: kind === 'verdict' ? verdictOf(value) : bytesOf(value, kind, family) }
  }
}

/** @returns what reads the endpoints of that map of a class, all slots of a key together, as `elementReader` would. */
export function slotsReader(
  map: string,
  family: Family,
): (key: string, slots: readonly Target[]) => readonly Element[] {
  const fields = shapeOf(map)!.key.slice(0, -1)
  const addressBytes = family === 4 ? 4 : 16
  return (key, slots) => {
    const common = bytesOf(key, fields, family)
    return slots.map(({ address, port }, slot) => {
      const own = Buffer.allocUnsafe(common.length + 4)
      common.copy(own)
      own.writeUInt32LE(slot, common.length)
      const value = Buffer.allocUnsafe(addressBytes + 4).fill(0)
      writeAddress(address, family, value, 0)
      value.writeUInt16BE(port, addressBytes)
      return { key: own, value }
    })
  }
}

function shapeOf(object: string): Shape | undefined {
  const each = classOf(object)
  if (each !== undefined) return each.prefix.startsWith('node-') ? NODE_ENDPOINTS : ENDPOINTS
  return SHAPES[object as keyof typeof SHAPES]
}

function verdictOf(text: string): Verdict {
  if (text.startsWith(GOTO)) return { kind: 'goto', chain: text.slice(GOTO.length) }
  if (text === 'drop') return { kind: 'drop' }
  throw new TypeError(`${text}: is no verdict`)
}

const GOTO = 'goto '

/** Hundreds of thousands are read at a start. @throws TypeError for what is written otherwise. */
function bytesOf(text: string, fields: readonly Field[], family: Family): Buffer {
  const addressBytes = family === 4 ? 4 : 16
  let length = 0
  for (const field of fields) length += field === 'address' ? addressBytes : 4
  // Of memory that many share, which takes half the time of memory of its own.
  const bytes = Buffer.allocUnsafe(length).fill(0)
  let at = 0
  let from = 0
  for (let i = 0; i < fields.length; i++) {
    const end = i === fields.length - 1 ? text.length : text.indexOf(BETWEEN, from)
    if (end < 0) throw new TypeError(`${text}: has not ${fields.length} fields`)
    const field = fields[i]!
    const word = text.slice(from, end)
    from = end + BETWEEN.length
    if (field === 'address') {
      writeAddress(word, family, bytes, at)
      at += addressBytes
      continue
    }
    const number = field === 'protocol' ? (PROTOCOLS[word] ?? NaN) : Number(word)
    if (!Number.isInteger(number)) throw new TypeError(`${text}: ${word} is no ${field}`)
    if (field === 'protocol') bytes[at] = number
    else if (field === 'port') bytes.writeUInt16BE(number, at)
    else bytes.writeUInt32LE(number, at)
    at += 4
  }
  return bytes
}
const BETWEEN = ' . '
