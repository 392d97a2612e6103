// BPF maps: tables that programs in the kernel read and this process writes.

import { closeSync } from 'node:fs'
import { endianness } from 'node:os'
import { Attributes, bpf, BpfError } from './syscall.ts'

/** Of enum bpf_map_type. */
const TYPES = { hash: 1, array: 2, 'lru-hash': 9 } as const

export type MapShape = {
  readonly type: keyof typeof TYPES
  readonly keyBytes: number
  readonly valueBytes: number
  /** An array has all of them from the start, all zero; what an LRU has no room for replaces the least used. */
  readonly entries: number
}

/** The kernel copies keys and values of a batch. */
const BATCH_ELEMENTS = 4096
const NAME_BYTES_MAX = 15
const E2BIG_HINT = 'too many entries, or too little memory'

export class BpfMap {
  readonly name: string
  readonly shape: MapShape
  readonly fd: number
  readonly #attributes: Attributes
  #closed = false

  constructor(name: string, shape: MapShape, fd: number) {
    this.name = name
    this.shape = shape
    this.fd = fd
    this.#attributes = new Attributes(32).u32(0, fd)
  }

  /** Sets one element, in one piece for whoever looks it up in a hash; of an array each aligned word is set in one piece. */
  set(key: Uint8Array, value: Uint8Array): void {
    this.#element(key, value)
    bpf('MAP_UPDATE_ELEM', this.#attributes, `map ${this.name}`)
  }

  /** @returns undefined if there is none. */
  get(key: Uint8Array): Buffer | undefined {
    const value = Buffer.alloc(this.shape.valueBytes)
    this.#element(key, value)
    return absent(() => bpf('MAP_LOOKUP_ELEM', this.#attributes, `map ${this.name}`)) ? undefined : value
  }

  /** @returns false if there was none. */
  delete(key: Uint8Array): boolean {
    this.#element(key)
    return !absent(() => bpf('MAP_DELETE_ELEM', this.#attributes, `map ${this.name}`))
  }

  /**
   * Sets elements in the order given, which costs less than one by one; if it throws, the first ones may be set.
   * @param keys,values of all elements, one after the other.
   */
  setAll(keys: Uint8Array, values: Uint8Array): void {
    const { keyBytes, valueBytes } = this.shape
    const count = keys.length / keyBytes
    if (!Number.isInteger(count) || values.length !== count * valueBytes)
      throw new RangeError(
        `map ${this.name}: ${keys.length} bytes of keys and ${values.length} of values are no elements`,
      )
    for (let start = 0; start < count; start += BATCH_ELEMENTS) {
      const end = Math.min(count, start + BATCH_ELEMENTS)
      const attributes = new Attributes(56)
        .pointer(16, keys.subarray(start * keyBytes, end * keyBytes))
        .pointer(24, values.subarray(start * valueBytes, end * valueBytes))
        .u32(32, end - start)
        .u32(36, this.fd)
      bpf('MAP_UPDATE_BATCH', attributes, `map ${this.name}, ${end - start} elements`)
    }
  }

  /** @param keys one after the other; those that are not there are left out. */
  deleteAll(keys: Uint8Array): void {
    const { keyBytes } = this.shape
    for (let start = 0; start < keys.length; start += keyBytes) this.delete(keys.subarray(start, start + keyBytes))
  }

  /** All keys of a hash, in no order; meant for tests and small maps. */
  keys(): readonly Buffer[] {
    const keys: Buffer[] = []
    const attributes = new Attributes(32).u32(0, this.fd)
    for (;;) {
      const next = Buffer.alloc(this.shape.keyBytes)
      attributes.pointer(8, keys.at(-1)).pointer(16, next)
      if (absent(() => bpf('MAP_GET_NEXT_KEY', attributes, `map ${this.name}`))) return keys
      keys.push(next)
    }
  }

  /** The kernel keeps the map for as long as a program or a pin refers to it. */
  close(): void {
    if (!this.#closed) closeSync(this.fd)
    this.#closed = true
  }

  #element(key: Uint8Array, value?: Uint8Array): void {
    const { keyBytes, valueBytes } = this.shape
    if (key.length !== keyBytes || (value !== undefined && value.length !== valueBytes))
      throw new RangeError(`map ${this.name}: an element of ${keyBytes} and ${valueBytes} bytes has others`)
    this.#attributes.pointer(8, key).pointer(16, value)
  }
}

/** @param name up to 15 letters, digits and underscores. @throws BpfError */
export function createMap(name: string, shape: MapShape): BpfMap {
  // Attributes and elements are written as x86 and arm64 have them.
  if (endianness() !== 'LE') throw new BpfError('this machine is big-endian', 'FULMAR_NO_BPF')
  const attributes = new Attributes(72)
    .u32(0, TYPES[shape.type])
    .u32(4, shape.keyBytes)
    .u32(8, shape.valueBytes)
    .u32(12, shape.entries)
    .text(28, name.slice(0, NAME_BYTES_MAX))
  const what = `map ${name} of ${shape.entries} entries`
  try {
    return new BpfMap(name, shape, bpf('MAP_CREATE', attributes, what))
  } catch (error) {
    if (!(error instanceof BpfError) || error.code !== 'E2BIG') throw error
    throw new BpfError(`${error.message}: ${E2BIG_HINT}`, error.code, { cause: error })
  }
}

/** Of a descriptor that came from a pin. @throws BpfError */
export function shapeOf(fd: number): { readonly name: string; readonly shape: MapShape | undefined } {
  const info = infoOf(fd, 80)
  const type = (Object.keys(TYPES) as (keyof typeof TYPES)[]).find((name) => TYPES[name] === info.readUInt32LE(0))
  const shape = type && {
    type,
    keyBytes: info.readUInt32LE(8),
    valueBytes: info.readUInt32LE(12),
    entries: info.readUInt32LE(16),
  }
  return { name: info.toString('latin1', 24, 40).replace(/\0.*$/, ''), shape }
}

/** What the kernel says of a map, program or link; zero where it says less. @throws BpfError */
export function infoOf(fd: number, bytes: number): Buffer {
  const info = Buffer.alloc(bytes)
  const attributes = new Attributes(16).u32(0, fd).u32(4, bytes).pointer(8, info)
  bpf('OBJ_GET_INFO_BY_FD', attributes, `object of descriptor ${fd}`)
  return info
}

function absent(attempt: () => number): boolean {
  try {
    attempt()
    return false
  } catch (error) {
    if ((error as BpfError).code === 'ENOENT') return true
    throw error
  }
}
