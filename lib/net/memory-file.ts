// A file without a name, in memory (memfd_create(2)), for a program to read while we are busy: a pipe would wait for us each
// time that it is empty.

import { writeSync } from 'node:fs'
import { libc } from './ffi.ts'

const MFD_CLOEXEC = 1
const functions = libc({ memfd_create: { return: 'int32', arguments: ['buffer', 'uint32'] } })

/** @returns its descriptor, at the beginning of the text, to be closed; undefined where there are no such files. */
export function memoryFile(name: string, text: string): number | undefined {
  try {
    const fd = functions()?.memfd_create(Buffer.from(`${name}\0`), MFD_CLOEXEC) ?? -1
    if (fd < 0) return undefined
    const bytes = Buffer.from(text)
    // To write at a position leaves the descriptor's own where it is.
    for (let at = 0; at < bytes.length;) at += writeSync(fd, bytes, at, bytes.length - at, at)
    return fd
  } catch {
    return undefined
  }
}
