// Which relays there are, as far as a daemon knows: those of its configuration, else what a relay last told, which is kept
// on disk, else those that the node joined by, which lead to one.

import { mkdir } from 'node:fs/promises'
import { dirname } from 'node:path'
import type { Log } from '../log.ts'
import { readReplicas, type Replica } from '../replicas.ts'
import { readIfPresent, writeWhole } from './files.ts'

export type RelayList = {
  readonly current: () => readonly Replica[]
  /** By a relay that proved to be of this mesh. */
  readonly told: (replicas: readonly Replica[]) => void
  /** The listener is called after each change, for as long as the daemon runs. */
  readonly onChange: (listener: () => void) => void
}

export async function openRelayList(options: {
  /** None to follow what relays tell. */
  readonly configured: readonly Replica[]
  /** URLs of one relay. */
  readonly joined: readonly string[]
  readonly file: string
  readonly log: Log
}): Promise<RelayList> {
  const { configured, file, log } = options
  let current = configured.length > 0 ? configured : ((await kept(file, log)) ?? [options.joined as Replica])
  const listeners: (() => void)[] = []
  let saved: Promise<void> = Promise.resolve()
  const save = async (text: string): Promise<void> => {
    try {
      await mkdir(dirname(file), { recursive: true })
      await writeWhole(file, text)
    } catch (err) {
      log.warn({ err, file }, 'cannot keep the list of relays')
    }
  }
  return {
    current: () => current,
    told: (replicas) => {
      const text = JSON.stringify(replicas)
      if (configured.length > 0 || text === JSON.stringify(current)) return
      log.info({ relays: replicas.map(([url]) => url) }, 'there are other relays now')
      current = replicas
      saved = saved.then(() => save(`${text}\n`))
      for (const listener of listeners) listener()
    },
    onChange: (listener) => void listeners.push(listener),
  }
}

async function kept(file: string, log: Log): Promise<readonly Replica[] | undefined> {
  const text = await readIfPresent(file)
  if (text === undefined) return undefined
  try {
    return readReplicas(JSON.parse(text))
  } catch (err) {
    log.warn({ err, file }, 'the list of relays that was kept is damaged; going by those that this node joined')
    return undefined
  }
}
