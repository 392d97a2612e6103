// Follows the folder: reads every manifest file once, and each again when it changes. inotify says when to look, a slow
// poll catches what it misses (network file systems, a queue that ran over); what counts is what stands in the files.

import { readdirSync, watch, type Dirent, type FSWatcher } from 'node:fs'
import { readdir, readFile, stat } from 'node:fs/promises'
import { join } from 'node:path'
import { setTimeout as sleep } from 'node:timers/promises'
import type { Log } from '../../lib/log.ts'
import { UsageError } from '../../lib/net/lifetime.ts'
import type { ManifestFile } from './manifest-file.ts'
import { createManifestParser, type ManifestParser } from './manifest-parser-client.ts'

export type FolderOptions = {
  readonly directory: string
  readonly log: Log
  /** Called with all there is, at first and after each change. */
  readonly onContents: (contents: FolderContents) => void
}
export type FolderContents = {
  readonly files: ReadonlyMap<string, ManifestFile>
  /** Folders that could not be read, relative to the whole, which is `''`: what they hold is not known now. */
  readonly unread: readonly string[]
  /** Of the folder itself, not of its files. */
  readonly problems: readonly string[]
}

const MANIFEST = /^[^.].*\.(ya?ml|json)$/
const FILE_MAX_BYTES = 4 << 20
const TOTAL_MAX_BYTES = 64 << 20
const FILES_MAX = 5_000
const DIRECTORIES_MAX = 256
const DEPTH_MAX = 8
const POLL_MS = 5_000
/** An editor writes a file in many steps: quiet for this long means that it is done. */
const SETTLE_MS = 50
const SETTLE_ROUNDS_MAX = 20

type Known = { readonly stamp: string; readonly size: number; readonly parsed: ManifestFile }

/** @throws UsageError: a folder that is not there at the start was mistyped; later that is a problem, and all stays. */
export function checkFolder(directory: string): void {
  try {
    readdirSync(directory)
  } catch (cause) {
    throw new UsageError(`--manifests ${directory}: ${(cause as Error).message}; name a folder of YAML files`, {
      cause,
    })
  }
}

/** Ends when the signal aborts. */
export async function followFolder({ directory, log, onContents }: FolderOptions, signal: AbortSignal): Promise<void> {
  let known: ReadonlyMap<string, Known> = new Map()
  let problems: readonly string[] = []
  const watchers = new Map<string, FSWatcher>()
  const parser = createManifestParser({}, signal)
  let events = 0
  let wake = new AbortController()
  const onEvent = (): void => {
    events++
    wake.abort()
  }
  const pause = (ms: number, until: AbortSignal) => sleep(ms, undefined, { signal: until }).catch(() => undefined)

  try {
    for (let first = true; !signal.aborted; first = false) {
      wake = new AbortController()
      const scan = await scanFolder(directory, known, parser)
      await parser.rest()
      if (signal.aborted) return
      const { files, unread } = scan
      const changed = first || scan.changed || !sameLines(scan.problems, problems)
      followDirectories(watchers, scan.directories, onEvent, log)
      known = files
      problems = scan.problems
      if (changed)
        onContents({ files: new Map([...files].map(([file, { parsed }]) => [file, parsed])), unread, problems })
      await pause(POLL_MS, AbortSignal.any([signal, wake.signal]))
      for (let round = 0; events > 0 && round < SETTLE_ROUNDS_MAX; round++) {
        events = 0
        await pause(SETTLE_MS, signal)
      }
    }
  } finally {
    for (const watcher of watchers.values()) watcher.close()
    await parser.rest()
  }
}

type Scan = Pick<FolderContents, 'unread' | 'problems'> & {
  readonly changed: boolean
  readonly files: ReadonlyMap<string, Known>
  /** Paths by identity: a folder that was replaced has to be watched anew. */
  readonly directories: ReadonlyMap<string, string>
}

async function scanFolder(root: string, known: ReadonlyMap<string, Known>, parser: ManifestParser): Promise<Scan> {
  const problems: string[] = []
  const unread: string[] = []
  const files = new Map<string, Known>()
  const directories = new Map<string, string>()
  let bytes = 0

  const visit = async (relative: string, depth: number): Promise<void> => {
    const directory = join(root, relative)
    const entries = await readdir(directory, { withFileTypes: true })
    const { dev, ino } = await stat(directory)
    directories.set(`${dev} ${ino} ${directory}`, directory)
    let absent = false
    for (const entry of entries.toSorted((a, b) => (a.name < b.name ? -1 : 1))) {
      const name = join(relative, entry.name)
      if (entry.isDirectory() && !entry.name.startsWith('.')) {
        if (depth === DEPTH_MAX || directories.size === DIRECTORIES_MAX)
          problems.push(
            `${name}: more than ${DEPTH_MAX} levels or ${DIRECTORIES_MAX} folders: it is not read; flatten the folder`,
          )
        else if (!(await tryVisit(name, depth + 1))) absent = true
      } else if (isManifest(entry)) {
        const file = await readIfChanged(root, name, known.get(name), parser)
        if (file === undefined) {
          absent = true
          continue
        }
        bytes += file.size
        if (files.size === FILES_MAX || bytes > TOTAL_MAX_BYTES)
          problems.push(
            `${name}: more than ${FILES_MAX} files or ${TOTAL_MAX_BYTES >> 20} MiB: it is not read; make the folder smaller`,
          )
        else files.set(name, file)
      }
    }
    // What went away may have gone with the folder, which is another matter.
    if (absent) await stat(directory)
  }
  /** @returns false if there is no such folder any more. */
  const tryVisit = async (relative: string, depth: number): Promise<boolean> => {
    try {
      await visit(relative, depth)
    } catch (error) {
      const { code, message } = error as NodeJS.ErrnoException
      // The whole folder was there at the start.
      if (code === 'ENOENT' && relative !== '') return false
      unread.push(relative)
      const held = 'what it held is served as last known good'
      problems.push(`${relative || root}: ${message}: ${held}; make the folder readable`)
    }
    return true
  }
  await tryVisit('', 0)
  const changed = files.size !== known.size || [...files].some(([name, file]) => known.get(name) !== file)
  return { changed, files, directories, unread, problems }
}

/** A link to a file counts as that file: a mounted ConfigMap is made of such. */
const isManifest = (entry: Dirent) => MANIFEST.test(entry.name) && (entry.isFile() || entry.isSymbolicLink())

async function readIfChanged(
  root: string,
  name: string,
  known: Known | undefined,
  parser: ManifestParser,
): Promise<Known | undefined> {
  const path = join(root, name)
  try {
    const { mtimeMs, ctimeMs, size, ino, dev } = await stat(path)
    const stamp = [mtimeMs, ctimeMs, size, ino, dev].join(' ')
    if (known?.stamp === stamp) return known
    if (size > FILE_MAX_BYTES)
      return broken(stamp, `${name}: has more than ${FILE_MAX_BYTES >> 20} MiB: it is not read; split it`)
    return { stamp, size, parsed: await parser.parse(name, await readFile(path, 'utf8')) }
  } catch (error) {
    const { code, message } = error as NodeJS.ErrnoException
    // Gone between readdir and stat, or a link to nothing: absent.
    if (code === 'ENOENT') return undefined
    const stamp = `unreadable ${message}`
    return known?.stamp === stamp ? known : broken(stamp, `${name}: ${message}: it is not read; make it readable`)
  }
}

const broken = (stamp: string, problem: string): Known => ({
  stamp,
  size: 0,
  parsed: { objects: [], problems: [problem] },
})

/** @param watchers and `directories` by identity. */
function followDirectories(
  watchers: Map<string, FSWatcher>,
  directories: ReadonlyMap<string, string>,
  onEvent: () => void,
  log: Log,
): void {
  const close = (id: string): void => {
    watchers.get(id)?.close()
    watchers.delete(id)
  }
  for (const id of [...watchers.keys()]) if (!directories.has(id)) close(id)
  for (const [id, directory] of directories) {
    if (watchers.has(id)) continue
    try {
      // An error means that it went away; the poll sees whether it comes back.
      watchers.set(
        id,
        watch(directory, onEvent).on('error', () => close(id)),
      )
    } catch (error) {
      log.debug({ path: directory, err: error }, 'folder cannot be watched; polling')
    }
  }
}

const sameLines = (a: readonly string[], b: readonly string[]) =>
  a.length === b.length && a.every((line, index) => line === b[index])
