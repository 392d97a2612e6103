// The latest announcement of each gateway on disk, a file each: a relay that was restarted hands them out before the
// gateways are back, and a gateway knows its peers without a relay. Announcements are signed by their nodes: the disk is
// not trusted with more than keeping.

import { readdir } from 'node:fs/promises'
import { join } from 'node:path'
import type { Log } from '../log.ts'
import { decodeSignal, encodeSignal, ProtocolError, type SignedAnnouncement } from '../wire/signal.ts'
import { makePrivateFolder, readIfPresent, writeWhole } from './files.ts'

export type AnnouncementFiles = {
  readonly load: () => Promise<ReadonlyMap<string, SignedAnnouncement>>
  /** Writes soon; of several for one node only the last. */
  readonly save: (node: string, announcement: SignedAnnouncement) => void
  /** Resolves when what was saved is on disk. */
  readonly flushed: () => Promise<void>
}

const SUFFIX = '.json'

export function openAnnouncements(stateDir: string, log: Log): AnnouncementFiles {
  const folder = join(stateDir, 'announcements')
  const pending = new Map<string, SignedAnnouncement>()
  let writing: Promise<void> | undefined

  const write = async (): Promise<void> => {
    // What is saved while another is written is met by the same loop; `writing` ends in the turn in which the loop does.
    for (const [node, announcement] of pending) {
      pending.delete(node)
      try {
        await makePrivateFolder(folder)
        const frame = encodeSignal({ kind: 'announce', node, announcement })
        await writeWhole(join(folder, `${encodeURIComponent(node)}${SUFFIX}`), frame)
      } catch (err) {
        log.warn({ err, node }, 'cannot keep an announcement; after a restart it is missed until it comes again')
      }
    }
    writing = undefined
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
    save(node, announcement) {
      pending.set(node, announcement)
      writing ??= write()
    },
    flushed: async () => writing,
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
