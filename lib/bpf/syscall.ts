// bpf(2) and what else of the C library the socket load balancer needs, through node:ffi: no addon, no compiler.

import type * as Ffi from 'node:ffi'
import { constants } from 'node:os'
import { getSystemErrorMap } from 'node:util'
import { loadFfi } from '../net/ffi.ts'

/** Of enum bpf_cmd. */
const COMMANDS = {
  MAP_CREATE: 0,
  MAP_LOOKUP_ELEM: 1,
  MAP_UPDATE_ELEM: 2,
  MAP_DELETE_ELEM: 3,
  MAP_GET_NEXT_KEY: 4,
  PROG_LOAD: 5,
  OBJ_PIN: 6,
  OBJ_GET: 7,
  PROG_GET_FD_BY_ID: 13,
  OBJ_GET_INFO_BY_FD: 15,
  PROG_QUERY: 16,
  MAP_UPDATE_BATCH: 26,
  MAP_DELETE_BATCH: 27,
  LINK_CREATE: 28,
  LINK_UPDATE: 29,
  LINK_DETACH: 34,
} as const
export type Command = keyof typeof COMMANDS

/** @param code as in errno, such as EPERM; or FULMAR_NO_BPF where this Node or machine cannot do it at all. */
export class BpfError extends Error {
  override readonly name = 'BpfError'
  readonly code: string
  constructor(message: string, code: string, options?: ErrorOptions) {
    super(message, options)
    this.code = code
  }
}

const SYSCALL: Readonly<Record<string, bigint>> = { x64: 321n, arm64: 280n }
const AF_INET = 2
const SOCK_STREAM = 1
const SOL_SOCKET = 1
/** Linux 5.14. */
const SO_NETNS_COOKIE = 71

const SIGNATURES = {
  syscall: { return: 'int64', arguments: ['int64', 'int64', 'buffer', 'int64'] },
  socket: { return: 'int32', arguments: ['int32', 'int32', 'int32'] },
  getsockopt: { return: 'int32', arguments: ['int32', 'int32', 'int32', 'buffer', 'buffer'] },
  close: { return: 'int32', arguments: ['int32'] },
  __errno_location: { return: 'pointer', arguments: [] },
} as const satisfies Ffi.FunctionDefinitions

type Libc = {
  readonly functions: Ffi.DynamicLibraryResult<typeof SIGNATURES>['functions']
  readonly address: (bytes: Uint8Array) => bigint
  /** Of this thread's last call. */
  readonly errno: () => number
  readonly number: bigint
}
let loaded: Libc | undefined

/** Loaded on first use, since it costs memory that a node without BPF need not spend. @throws BpfError */
function libc(): Libc {
  if (loaded !== undefined) return loaded
  const number = SYSCALL[process.arch]
  if (number === undefined) throw new BpfError(`the number of bpf(2) on ${process.arch} is not known`, 'FULMAR_NO_BPF')
  const ffi = ffiHere()
  try {
    const { functions } = ffi.dlopen(null, SIGNATURES)
    const location = functions.__errno_location()
    loaded = {
      functions,
      number,
      errno: () => ffi.getInt32(location),
      address: (bytes) => ffi.getRawPointer(bytes),
    }
    return loaded
  } catch (cause) {
    throw new BpfError(`node:ffi does not find the C library: ${(cause as Error).message}`, 'FULMAR_NO_BPF', { cause })
  }
}

function ffiHere(): typeof Ffi {
  try {
    return loadFfi()
  } catch (cause) {
    throw new BpfError(`bpf(2) cannot be called: ${(cause as Error).message}; use Node 26`, 'FULMAR_NO_BPF', { cause })
  }
}

/** The argument of a command (union bpf_attr), and the bytes that it points to. */
export class Attributes {
  readonly bytes: Buffer
  readonly #pointed = new Map<number, Uint8Array>()

  constructor(length: number) {
    this.bytes = Buffer.alloc(length)
  }
  u32(offset: number, value: number): this {
    this.bytes.writeUInt32LE(value, offset)
    return this
  }
  /** Kept for as long as the attributes are; undefined is a null pointer. */
  pointer(offset: number, bytes: Uint8Array | undefined): this {
    if (bytes === undefined) this.#pointed.delete(offset)
    else this.#pointed.set(offset, bytes)
    this.bytes.writeBigUInt64LE(bytes === undefined ? 0n : libc().address(bytes), offset)
    return this
  }
  text(offset: number, value: string): this {
    this.bytes.write(value, offset, 'latin1')
    return this
  }
}

/** What the kernel reads and writes during a call must not be collected. */
let inUse: Attributes | undefined

/**
 * @param what is done to what, for the error's text.
 * @returns what the kernel returns, a new file descriptor for some commands. Blocks for microseconds, as a rule.
 * @throws BpfError
 */
export function bpf(command: Command, attributes: Attributes, what: string): number {
  const { functions, number, errno } = libc()
  inUse = attributes
  const result = functions.syscall(number, BigInt(COMMANDS[command]), inUse.bytes, BigInt(inUse.bytes.length))
  inUse = undefined
  if (result >= 0n) return Number(result)
  const code = errnoName(errno())
  throw new BpfError(`${what}: bpf(${command}) fails with ${code}`, code)
}

/** What programs know this process's network namespace by; undefined on a kernel before 5.14. @throws BpfError */
export function netnsCookie(): bigint | undefined {
  const { functions } = libc()
  const socket = functions.socket(AF_INET, SOCK_STREAM, 0)
  if (socket < 0) throw new BpfError('socket: cannot be opened', errnoName(libc().errno()))
  const cookie = Buffer.alloc(8)
  const length = Buffer.from([cookie.length, 0, 0, 0])
  const result = functions.getsockopt(socket, SOL_SOCKET, SO_NETNS_COOKIE, cookie, length)
  functions.close(socket)
  return result === 0 ? cookie.readBigUInt64LE() : undefined
}

function errnoName(errno: number): string {
  // Some of the kernel's have no number in Node's table.
  const known = getSystemErrorMap().get(-errno)?.[0]
  return known ?? Object.entries(constants.errno).find(([, number]) => number === errno)?.[0] ?? `errno ${errno}`
}
