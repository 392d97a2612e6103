// The attributes of rtnetlink messages, and what stands in them: bytes ↔ values.
//
//   attribute: u16 length, u16 type, value, pad to 4; integers are in the byte order of the host

import { endianness } from 'node:os'
import ipaddr from 'ipaddr.js'
import { parseAttributes, type StreamData } from 'netlink'

/** An attribute that `netlink` has no writer for. */
export const attribute =
  (type: number, value: Uint8Array): StreamData =>
  (out) =>
    out.push(type, value)

export function attributesOf(bytes: Buffer, headerLength: number): ReadonlyMap<number, Buffer> {
  const attributes = new Map<number, Buffer>()
  parseAttributes(bytes.subarray(headerLength), ({ type, data }) => attributes.set(type, data))
  return attributes
}

const LITTLE_ENDIAN = endianness() === 'LE'
export const u32 = (bytes: Buffer, offset: number): number =>
  LITTLE_ENDIAN ? bytes.readUInt32LE(offset) : bytes.readUInt32BE(offset)
export const u16 = (bytes: Buffer, offset: number) =>
  LITTLE_ENDIAN ? bytes.readUInt16LE(offset) : bytes.readUInt16BE(offset)
export const u16Bytes = (value: number): Buffer => Buffer.from(Uint16Array.of(value).buffer)
export const u32Bytes = (value: number) => Buffer.from(Uint32Array.of(value).buffer)
export const numberOf = (bytes: Buffer | undefined, otherwise = 0) => (bytes?.length === 4 ? u32(bytes, 0) : otherwise)
export const stringOf = (bytes: Buffer | undefined) => bytes?.toString().replace(/\0$/, '') ?? ''
export const addressBytes = (address: string) => Buffer.from(ipaddr.parse(address).toByteArray())
export const addressText = (bytes: Uint8Array) => ipaddr.fromByteArray([...bytes]).toString()
