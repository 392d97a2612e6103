// What members of a pool tell each other of nodes, paths and endpoints that are not as they should be, behind the fields of
// a datagram (lib/wire/lan.ts, gateway/findings.ts). What is not told is well, so in a healthy mesh there is nothing:
//
//   u8 type | u8 length of what follows | type 1, a node that is silent: name of its pool, name of the node
//                                       | type 2, the path to a pool: u8 state (1 relayed, 2 silent), name of the pool
//                                       | type 3, an endpoint that leaves calls unanswered: 4 or 16 bytes address, u16 port
//
// A name is a u8 length and UTF-8. Types and states that are not known here are skipped.

import { isIPv4, isIPv6 } from 'node:net'
import { readAddress, writeAddress } from '../address.ts'

export type Finding =
  /** Neither its agent nor its kernel answers. */
  | { readonly kind: 'node'; readonly pool: string; readonly node: string }
  /** `silent`: no rung is answered, which a gateway that is down looks like too. */
  | { readonly kind: 'path'; readonly pool: string; readonly state: 'relayed' | 'silent' }
  /** TCP. */
  | { readonly kind: 'endpoint'; readonly address: string; readonly port: number }

const NODE = 1
const PATH = 2
const ENDPOINT = 3
const STATES = ['relayed', 'silent'] as const
const MAX_VALUE_BYTES = 0xff
/** With a certificate, and what else is said, still one datagram that needs no second fragment in most pools. */
export const MAX_FINDINGS_BYTES = 800

/** @returns as many as there is room for, the first of the list first. Names that are too long are left out. */
export function encodeFindings(findings: readonly Finding[]): Buffer {
  const parts: Buffer[] = []
  let bytes = 0
  for (const finding of findings) {
    const [type, value] = encodeFinding(finding)
    if (value.length > MAX_VALUE_BYTES || bytes + 2 + value.length > MAX_FINDINGS_BYTES) continue
    bytes += 2 + value.length
    parts.push(Buffer.of(type, value.length), value)
  }
  return Buffer.concat(parts)
}

/** What is cut short ends the list: bytes behind it are a later version's. */
export function decodeFindings(bytes: Buffer): readonly Finding[] {
  const findings: Finding[] = []
  const end = Math.min(bytes.length, MAX_FINDINGS_BYTES)
  for (let offset = 0; offset + 2 <= end;) {
    const next = offset + 2 + bytes[offset + 1]!
    if (next > end) break
    const finding = decodeFinding(bytes[offset]!, bytes.subarray(offset + 2, next))
    if (finding !== undefined) findings.push(finding)
    offset = next
  }
  return findings
}

function encodeFinding(finding: Finding): readonly [number, Buffer] {
  switch (finding.kind) {
    case 'node':
      return [NODE, Buffer.concat([name(finding.pool), name(finding.node)])]
    case 'path':
      return [PATH, Buffer.concat([Buffer.of(STATES.indexOf(finding.state) + 1), name(finding.pool)])]
    case 'endpoint': {
      const family = finding.address.includes(':') ? 6 : 4
      const value = Buffer.alloc(family === 4 ? 6 : 18)
      writeAddress(finding.address, family, value, 0)
      value.writeUInt16BE(finding.port, value.length - 2)
      return [ENDPOINT, value]
    }
  }
}

function decodeFinding(type: number, value: Buffer): Finding | undefined {
  switch (type) {
    case NODE: {
      const pool = readName(value, 0)
      const node = pool && readName(value, pool.end)
      return pool && node && { kind: 'node', pool: pool.text, node: node.text }
    }
    case PATH: {
      const state = STATES[value[0]! - 1]
      const pool = readName(value, 1)
      return pool && state && { kind: 'path', pool: pool.text, state }
    }
    case ENDPOINT: {
      if (value.length !== 6 && value.length !== 18) return undefined
      const address = readAddress(value, value.length === 6 ? 4 : 6, 0)
      const port = value.readUInt16BE(value.length - 2)
      return port === 0 || !(isIPv4(address) || isIPv6(address)) ? undefined : { kind: 'endpoint', address, port }
    }
    default:
      return undefined
  }
}

function name(text: string): Buffer {
  const bytes = Buffer.from(text)
  return Buffer.concat([Buffer.of(Math.min(bytes.length, MAX_VALUE_BYTES)), bytes])
}

function readName(value: Buffer, offset: number): { readonly text: string; readonly end: number } | undefined {
  const length = value[offset]
  if (length === undefined || length === 0 || offset + 1 + length > value.length) return undefined
  return { text: value.toString('utf8', offset + 1, offset + 1 + length), end: offset + 1 + length }
}
