// A pseudo-terminal pair by /dev/ptmx and ioctl(2), through node:ffi.

import { constants, openSync } from 'node:fs'
import { loadFfi } from '../../../lib/net/ffi.ts'

export type Pty = { readonly master: number; readonly slave: number }

/** <asm-generic/ioctls.h>, the same on amd64 and arm64. */
const TIOCSPTLCK = 0x4004_5431n
const TIOCGPTN = 0x8004_5430n
const TIOCSWINSZ = 0x5414n
const SIGNATURES = { ioctl: { return: 'int32', arguments: ['int32', 'uint64', 'buffer'] } } as const

let ioctl: ((descriptor: number, request: bigint, argument: Uint8Array) => number) | undefined

/** Both descriptors are the caller's to close. */
export function openPty(): Pty {
  ioctl ??= loadFfi().dlopen(null, SIGNATURES).functions.ioctl
  const master = openSync('/dev/ptmx', constants.O_RDWR | constants.O_NOCTTY)
  const number = Buffer.alloc(4)
  if (ioctl(master, TIOCSPTLCK, number) !== 0 || ioctl(master, TIOCGPTN, number) !== 0)
    throw new Error('no pseudo-terminal can be had')
  const slave = openSync(`/dev/pts/${number.readInt32LE(0)}`, constants.O_RDWR | constants.O_NOCTTY)
  return { master, slave }
}

/** The foreground process group gets SIGWINCH. */
export function resizePty(
  master: number,
  { width, height }: { readonly width: number; readonly height: number },
): void {
  const size = Buffer.alloc(8)
  size.writeUInt16LE(height & 0xffff, 0)
  size.writeUInt16LE(width & 0xffff, 2)
  ioctl?.(master, TIOCSWINSZ, size)
}
