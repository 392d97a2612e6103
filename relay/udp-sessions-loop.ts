// Keeps the sessions over UDP on disk (udp-sessions-file.ts), a moment after each change.

import { join } from 'node:path'
import type { Log } from '../lib/log.ts'
import { PRIVATE_MODE, readIfPresent, writeWhole } from '../lib/net/files.ts'
import { createUpkeep } from '../lib/net/upkeep.ts'
import type { Places, PortRange } from './udp-relay.ts'
import { formatSessions, readSessions, type KeptSession } from './udp-sessions-file.ts'

export type KeptSessions = {
  /** Of the relay that ran before. */
  readonly before: readonly KeptSession[]
  /** The sessions, or where their sides are, have changed. */
  readonly trigger: () => void
  /** After the signal aborted. */
  readonly closed: Promise<void>
}

/** A relay that lost a network hears of hundreds of new places at once. */
const COALESCE_MS = 200
/** Of the time that writing takes. */
const REST = 4

/** Resolves once the disk is read. */
export async function keepSessions(
  options: {
    readonly stateDir: string
    readonly places: Places
    readonly ports: PortRange
    readonly sessions: () => readonly KeptSession[]
    readonly log: Log
  },
  signal: AbortSignal,
): Promise<KeptSessions> {
  const { stateDir, places, ports, sessions, log } = options
  const path = join(stateDir, 'udp-sessions.json')
  const before = readSessions((await readIfPresent(path)) ?? '', places, ports)
  const upkeep = createUpkeep(
    {
      pass: () => writeWhole(path, formatSessions(places, ports, sessions()), PRIVATE_MODE),
      onError: (err, failures) => {
        if (failures === 1)
          log.warn({ err, path }, 'cannot save the sessions over UDP; they do not outlive this relay’s restart')
      },
      coalesceMs: COALESCE_MS,
      rest: REST,
    },
    signal,
  )
  return { before, trigger: upkeep.trigger, closed: upkeep.idle() }
}
