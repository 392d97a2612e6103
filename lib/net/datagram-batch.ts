// Many datagrams per system call: recvmmsg(2) and sendmmsg(2) through node:ffi, on a socket that node:dgram waits for. Node
// makes several objects and a system call for each datagram; here a batch is read into memory of its own, answered, and sent
// with two calls.
//
// The kernel writes and reads where the headers below point to. All of it is made once, has fixed lengths, and is held by
// one object that lives as long as the process.

import type * as Ffi from 'node:ffi'
import type { Family } from '../cidr.ts'
import { loadFfi } from './ffi.ts'
import { addressIn, AF, encodeSockaddr, SOCK, SOCKADDR_BYTES } from './sockaddr.ts'

/** Datagrams in a batch. */
const SLOTS = 32
/** Longer ones are cut off. */
const RECEIVE_BYTES = 4096
/** Longer answers are not sent by batch. */
export const BATCH_ANSWER_BYTES = 1280
/** struct sockaddr_in6, and some. */
const NAME_BYTES = 32

// struct mmsghdr and struct iovec on 64-bit Linux, in bytes.
const HEADER_BYTES = 64
const HEADER = { name: 0, nameBytes: 8, vector: 16, vectors: 24, received: 56 } as const
const VECTOR_BYTES = 16

const MSG_DONTWAIT = 0x40

const SIGNATURES = {
  socket: { return: 'int32', arguments: ['int32', 'int32', 'int32'] },
  bind: { return: 'int32', arguments: ['int32', 'buffer', 'uint32'] },
  close: { return: 'int32', arguments: ['int32'] },
  recvmmsg: { return: 'int32', arguments: ['int32', 'pointer', 'uint32', 'int32', 'pointer'] },
  sendmmsg: { return: 'int32', arguments: ['int32', 'pointer', 'uint32', 'int32'] },
} as const satisfies Ffi.FunctionDefinitions

/** Who sent a datagram, as the kernel wrote it. */
export type Sender = Uint8Array

export class DatagramBatch {
  readonly #libc: Ffi.DynamicLibraryResult<typeof SIGNATURES>['functions']
  readonly #pointer: (bytes: Uint8Array) => bigint
  /** What came, and who sent it. */
  readonly #received = memory(SLOTS * RECEIVE_BYTES)
  readonly #senders = memory(SLOTS * NAME_BYTES)
  readonly #receiveHeaders = memory(SLOTS * HEADER_BYTES)
  readonly #receiveVectors = memory(SLOTS * VECTOR_BYTES)
  /** What goes, and to whom. */
  readonly #answers = memory(SLOTS * BATCH_ANSWER_BYTES)
  readonly #targets = memory(SLOTS * NAME_BYTES)
  readonly #sendHeaders = memory(SLOTS * HEADER_BYTES)
  readonly #sendVectors = memory(SLOTS * VECTOR_BYTES)
  readonly #receiveAt: bigint
  readonly #sendAt: bigint
  #waiting = 0

  private constructor(ffi: typeof Ffi) {
    this.#libc = ffi.dlopen(null, SIGNATURES).functions
    this.#pointer = (bytes) => ffi.getRawPointer(bytes)
    this.#receiveAt = this.#lay(
      this.#receiveHeaders,
      this.#receiveVectors,
      this.#received,
      RECEIVE_BYTES,
      this.#senders,
    )
    this.#sendAt = this.#lay(this.#sendHeaders, this.#sendVectors, this.#answers, BATCH_ANSWER_BYTES, this.#targets)
  }

  /** One for the process; undefined where it cannot be had, which any socket does without. */
  static #one: DatagramBatch | undefined | 'none'
  static get(): DatagramBatch | undefined {
    DatagramBatch.#one ??= make()
    return DatagramBatch.#one === 'none' ? undefined : DatagramBatch.#one

    function make(): DatagramBatch | 'none' {
      if (process.platform !== 'linux' || (process.arch !== 'x64' && process.arch !== 'arm64')) return 'none'
      try {
        return new DatagramBatch(loadFfi())
      } catch {
        return 'none'
      }
    }
  }

  /** A bound socket for `bind({ fd })` of node:dgram; undefined if it cannot be had, of which node:dgram knows the reason. */
  bind(address: string, family: Family, port: number): number | undefined {
    const name = encodeSockaddr(address, family, port)
    const fd = this.#libc.socket(AF[family], SOCK.datagram | SOCK.nonBlocking | SOCK.closeOnExec, 0)
    if (fd < 0) return undefined
    if (this.#libc.bind(fd, name, name.length) === 0) return fd
    this.#libc.close(fd)
    return undefined
  }

  /**
   * Reads what is there, at most a batch.
   * @param take gets a datagram's bytes for the time of the call only, and the sender as well.
   */
  receive(fd: number, take: (bytes: Buffer, sender: Sender) => void): void {
    for (let slot = 0; slot < SLOTS; slot++)
      this.#receiveHeaders.writeUInt32LE(SOCKADDR_BYTES[6], slot * HEADER_BYTES + HEADER.nameBytes)
    const count = this.#libc.recvmmsg(fd, this.#receiveAt, SLOTS, MSG_DONTWAIT, 0n)
    for (let slot = 0; slot < count; slot++) {
      const header = slot * HEADER_BYTES
      const [start, senderStart] = [slot * RECEIVE_BYTES, slot * NAME_BYTES]
      const length = this.#receiveHeaders.readUInt32LE(header + HEADER.received)
      const nameLength = this.#receiveHeaders.readUInt32LE(header + HEADER.nameBytes)
      take(
        this.#received.subarray(start, start + Math.min(length, RECEIVE_BYTES)),
        this.#senders.subarray(senderStart, senderStart + Math.min(nameLength, NAME_BYTES)),
      )
    }
  }

  /** Puts an answer of at most BATCH_ANSWER_BYTES beside those that wait; both are copied. */
  put(fd: number, answer: Uint8Array, target: Sender): void {
    if (this.#waiting === SLOTS) this.flush(fd)
    const slot = this.#waiting++
    this.#answers.set(answer, slot * BATCH_ANSWER_BYTES)
    this.#targets.set(target, slot * NAME_BYTES)
    this.#sendHeaders.writeUInt32LE(target.length, slot * HEADER_BYTES + HEADER.nameBytes)
    this.#sendVectors.writeUInt32LE(answer.length, slot * VECTOR_BYTES + 8)
  }

  /** Sends what waits; as with any datagram, what cannot be sent now is lost. */
  flush(fd: number): void {
    for (let sent = 0; sent < this.#waiting;) {
      const at = this.#sendAt + BigInt(sent * HEADER_BYTES)
      const count = this.#libc.sendmmsg(fd, at, this.#waiting - sent, MSG_DONTWAIT)
      // An error is the first one's alone: nobody sends to port 0, say.
      sent += Math.max(1, count)
    }
    this.#waiting = 0
  }

  /** Points each header to its slot. @returns the headers' address. */
  #lay(headers: Buffer, vectors: Buffer, data: Buffer, dataBytes: number, names: Buffer): bigint {
    const [vectorsAt, dataAt, namesAt] = [vectors, data, names].map(this.#pointer) as [bigint, bigint, bigint]
    for (let slot = 0; slot < SLOTS; slot++) {
      const header = slot * HEADER_BYTES
      headers.writeBigUInt64LE(namesAt + BigInt(slot * NAME_BYTES), header + HEADER.name)
      headers.writeBigUInt64LE(vectorsAt + BigInt(slot * VECTOR_BYTES), header + HEADER.vector)
      headers.writeBigUInt64LE(1n, header + HEADER.vectors)
      vectors.writeBigUInt64LE(dataAt + BigInt(slot * dataBytes), slot * VECTOR_BYTES)
      vectors.writeBigUInt64LE(BigInt(dataBytes), slot * VECTOR_BYTES + 8)
    }
    return this.#pointer(headers)
  }
}

/** Of its own, so that it stays where it is; not from Node's pool. */
const memory = (bytes: number): Buffer => Buffer.from(new ArrayBuffer(bytes))

/** As text, for a log. */
export const senderText = (sender: Sender): string => addressIn(sender) ?? 'unknown'
