// The latest announcement of each gateway on disk, a file each: a relay that was restarted hands them out before the
// gateways are back, and a gateway knows its peers without a relay. Announcements are signed by their nodes: the disk is
// not trusted with more than keeping.

import { readdir, rm } from 'node:fs/promises'
import { join } from 'node:path'
import type { Log } from '../log.ts'
import { decodeSignal, encodeSignal, ProtocolError, type SignedAnnouncement } from '../wire/signal.ts'
import { makePrivateFolder, readIfPresent, writeWhole } from './files.ts'

export type AnnouncementFiles = {
  readonly load: () => Promise<ReadonlyMap<string, SignedAnnouncement>>
  /** Writes soon; of several for one node only the last. */
  readonly save: (node: string, announcement: SignedAnnouncement) => void
  readonly remove: (node: string) => void
  /** Writes what waits; resolves when what was saved is on disk. */
  readonly flushed: () => Promise<void>
}

const SUFFIX = '.json'
/**
 * Between two rounds of writing, for so many times as long as the last took: where a whole mesh starts, everybody announces
 * several times, and flash cards are slow and wear out.
 */
const REST = 9
const REST_MIN_MS = 250
const REST_MAX_MS = 5_000

export function openAnnouncements(stateDir: string, log: Log): AnnouncementFiles {
  const folder = join(stateDir, 'announcements')
  const pathOf = (node: string) => join(folder, `${encodeURIComponent(node)}${SUFFIX}`)
  /** undefined: to be removed. */
  const pending = new Map<string, SignedAnnouncement | undefined>()
  let writing: Promise<void> | undefined
  let flushing = false
  let hurry = (): void => undefined

  const write = async (): Promise<void> => {
    while (pending.size > 0) {
      const beganMs = performance.now()
      const round = [...pending]
      pending.clear()
      for (const [node, announcement] of round) await keep(node, announcement)
      if (flushing) continue
      const restMs = Math.min(REST_MAX_MS, Math.max(REST_MIN_MS, REST * (performance.now() - beganMs)))
      await new Promise<void>((resolve) => {
        hurry = resolve
        setTimeout(resolve, restMs).unref()
      })
    }
    writing = undefined
  }
  const keep = async (node: string, announcement: SignedAnnouncement | undefined): Promise<void> => {
    try {
      if (announcement === undefined) return await rm(pathOf(node), { force: true })
      await makePrivateFolder(folder)
      await writeWhole(pathOf(node), encodeSignal({ kind: 'announce', node, announcement }))
    } catch (err) {
      log.warn({ err, node }, 'cannot keep an announcement; after a restart it is missed until it comes again')
    }
  }
  const change = (node: string, announcement: SignedAnnouncement | undefined): void => {
    pending.set(node, announcement)
    writing ??= write()
  }

  return {
    async load() {
      await makePrivateFolder(folder)
      const found = new Map<string, SignedAnnouncement>()
      for (const name of await readdir(folder)) {
        if (!name.endsWith(SUFFIX)) continue
        const frame = read((await readIfPresent(join(folder, name))) ?? '')
        if (frame?.kind === 'announce') found.set(frame.node, frame.announcement)
        else log.warn({ file: join(folder, name) }, 'not an announcement; ignored')
      }
      return found
    },
    save: change,
    remove: (node) => change(node, undefined),
    async flushed() {
      flushing = true
      hurry()
      await writing
      flushing = false
    },
  }
}

function read(text: string): ReturnType<typeof decodeSignal> {
  try {
    return decodeSignal(text)
  } catch (error) {
    if (error instanceof ProtocolError) return undefined
    throw error
  }
}
