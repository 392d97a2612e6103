// The memory of processes: by /proc/PID/smaps what is theirs alone, and what lies in files that others may map too; and single
// figures of /proc/PID/status.

import { readdirSync, readFileSync, readlinkSync } from 'node:fs'

export type Memory = {
  /** Of no file: nobody else has it. */
  readonly anonBytes: number
  /** Resident bytes by file, as read from it. */
  readonly files: ReadonlyMap<string, number>
}

const HEADER = /^[0-9a-f]+-[0-9a-f]+ \S+ \S+ (\S+ \d+) *(.*)$/

/** @param smaps the file's text. */
export function memoryOf(smaps: string): Memory {
  const files = new Map<string, number>()
  let anonBytes = 0
  let file = ''
  let residentBytes = 0
  for (const line of smaps.split('\n')) {
    const [, inode, path] = HEADER.exec(line) ?? []
    if (inode !== undefined) file = inode.endsWith(' 0') ? '' : `${inode} ${path}`
    const [, field, kilobytes] = /^(Rss|Anonymous): +(\d+) kB$/.exec(line) ?? []
    if (field === 'Rss') residentBytes = Number(kilobytes) * 1024
    if (field !== 'Anonymous') continue
    // Of a private mapping of a file, what was written to is anonymous.
    const anonymous = file === '' ? residentBytes : Number(kilobytes) * 1024
    anonBytes += anonymous
    if (file !== '') files.set(file, (files.get(file) ?? 0) + residentBytes - anonymous)
  }
  return { anonBytes, files }
}

/** Bytes of several processes on one machine, where each file that they map counts once. */
export function bytesTogether(processes: readonly Memory[]): number {
  const files = new Map<string, number>()
  for (const memory of processes)
    for (const [file, bytes] of memory.files) files.set(file, Math.max(files.get(file) ?? 0, bytes))
  const anonymous = processes.reduce((sum, { anonBytes }) => sum + anonBytes, 0)
  return [...files.values()].reduce((sum, bytes) => sum + bytes, anonymous)
}

/** Bytes. @throws Error where the process has ended. */
export function statusBytes(pid: number, field: 'RssAnon' | 'VmHWM'): number {
  const text = readFileSync(`/proc/${pid}/status`, 'utf8')
  return Number(new RegExp(`^${field}:\\s+(\\d+) kB$`, 'm').exec(text)?.[1] ?? NaN) * 1024
}

/** The wireguard-go processes in the network namespaces of these daemons. */
export function wireguardGoOf(daemons: readonly number[]): readonly number[] {
  const networkOf = (pid: number | string): string => readlinkSync(`/proc/${pid}/ns/net`)
  const networks = new Set(daemons.map(networkOf))
  return readdirSync('/proc').flatMap((pid) => {
    try {
      if (!/^\d+$/.test(pid) || readFileSync(`/proc/${pid}/comm`, 'utf8').trim() !== 'wireguard-go') return []
      return networks.has(networkOf(pid)) ? [Number(pid)] : []
    } catch {
      // It has ended meanwhile.
      return []
    }
  })
}
