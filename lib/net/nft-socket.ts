// Transactions of nftables by netlink (lib/net/nft-batch.ts): one costs a fraction of what nft takes to have it read, since nft
// asks for all tables, chains and sets before each. A table may belong to the socket that made it, and ends with it.
//
// The kernel does all of a batch within write(2), and answers before it returns. It waits there for whoever else changes
// nftables, seconds where that is much: so it is called in a thread of libuv's.

import { close, closeSync, readSync, write } from 'node:fs'
import { promisify } from 'node:util'
import { libc } from './ffi.ts'
import { HEADER } from './nft-batch.ts'
import { NetfilterError } from './netfilter.ts'

export type NftSocket = {
  /**
   * After those that were asked for before.
   * @param batch of up to BATCH_BYTES_MAX; it may be applied again and again.
   * @throws NetfilterError with what the kernel said, or Error where it said nothing; then nothing was changed.
   */
  readonly apply: (batch: Uint8Array) => Promise<void>
  /** Once nothing is asked for any more. */
  readonly close: () => void
}

/** The kernel holds up whoever else changes nftables for so long as it takes this in: some 100 ms. */
export const BATCH_BYTES_MAX = 4 << 20

const AF_NETLINK = 16
const NETLINK_NETFILTER = 12
const SOCK_RAW = 3
const SOCK_NONBLOCK = 0o4000
const SOCK_CLOEXEC = 0o2000000
const SOL_SOCKET = 1
const SO_SNDBUFFORCE = 32
const SOL_NETLINK = 270
/** Answers do not repeat what they are about, which a socket would have no room for. */
const NETLINK_CAP_ACK = 10
const MESSAGE_ERROR = 2
const ANSWER_BYTES_MAX = 64 << 10

const functions = libc({
  socket: { return: 'int32', arguments: ['int32', 'int32', 'int32'] },
  setsockopt: { return: 'int32', arguments: ['int32', 'int32', 'int32', 'buffer', 'int32'] },
})
const writeAsync = promisify(write)

/** @throws Error where the C library cannot be called, or gives no such socket. */
export function openNftSocket(): NftSocket {
  const fd = functions()?.socket(AF_NETLINK, SOCK_RAW | SOCK_NONBLOCK | SOCK_CLOEXEC, NETLINK_NETFILTER) ?? -1
  if (fd < 0) throw new Error('nftables: no netlink socket can be opened')
  const isSet = (level: number, option: number, value: number): boolean => {
    const bytes = Buffer.alloc(4)
    bytes.writeInt32LE(value)
    return functions()?.setsockopt(fd, level, option, bytes, bytes.length) === 0
  }
  if (!isSet(SOL_SOCKET, SO_SNDBUFFORCE, BATCH_BYTES_MAX) || !isSet(SOL_NETLINK, NETLINK_CAP_ACK, 1)) {
    closeSync(fd)
    throw new Error('nftables: a netlink socket has no room for large transactions; needs root or CAP_NET_ADMIN')
  }
  const answer = Buffer.alloc(ANSWER_BYTES_MAX)
  let last: Promise<unknown> = Promise.resolve()

  const transact = async (batch: Uint8Array): Promise<void> => {
    await writeAsync(fd, batch)
    // An error for each change that failed, and no word of the others but the last, which is acknowledged.
    let failure: number | undefined
    for (let length = read(fd, answer); length !== undefined; length = read(fd, answer)) {
      const errno = errnoOf(answer.subarray(0, length))
      if (errno === 0 && failure === undefined) return
      failure ??= errno
    }
    if (failure === undefined) throw new Error('nftables: the answer of the kernel is lost')
    throw new NetfilterError('nftables: the kernel refuses a change', -failure)
  }
  return {
    apply: (batch) => {
      const result = last.then(() => transact(batch))
      last = result.catch(() => undefined)
      return result
    },
    close: () => void last.then(() => close(fd)),
  }
}

/** @returns undefined where nothing is there to be read, 0 where something was and is lost. */
function read(fd: number, into: Buffer): number | undefined {
  try {
    return readSync(fd, into)
  } catch (error) {
    const { code } = error as NodeJS.ErrnoException
    if (code === 'EAGAIN') return undefined
    if (code === 'ENOBUFS') return 0
    throw error
  }
}

/** @returns negative, or 0; undefined for what is no answer. */
const errnoOf = (message: Buffer): number | undefined =>
  message.length >= HEADER.bytes + 4 && message.readUInt16LE(HEADER.type) === MESSAGE_ERROR
    ? message.readInt32LE(HEADER.bytes)
    : undefined
