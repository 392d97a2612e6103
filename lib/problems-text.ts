// What is wrong, as daemons say it themselves and as it shows in their states: each problem once, with everybody who has it.

import type { DaemonStatus, MetadataStatus, SessionStatus } from './status.ts'
import { countText, durationText, listText, paragraph } from './text-table.ts'

export type HostStatus = { readonly host: string; readonly status: DaemonStatus }
/** A daemon that should answer and does not. */
export type SilentDaemon = { readonly host: string; readonly daemon: string; readonly reason: string }

type Problem = { readonly where: string; readonly text: string }

/** A gateway that has just started is still looking; that is no problem yet. */
const PATH_GRACE_MS = 5_000
/** A relay that starts again is back in less. */
const SESSION_GRACE_MS = 30_000
/** A table names the first few; all of them are in the JSON. */
const MAX_PROBLEMS = 50
const MAX_PLACES = 4

/** @param nowMs Unix time, against which all ages are shown. @param width of a line, in columns. */
export function problemsText(
  statuses: readonly HostStatus[],
  silent: readonly SilentDaemon[],
  nowMs: number,
  width: number,
): string {
  const places = new Map<string, string[]>()
  for (const { where, text } of [...silent.map(silentProblem), ...statuses.flatMap((each) => placed(each, nowMs))])
    places.set(text, [...(places.get(text) ?? []), where])
  if (places.size === 0) return 'No problems\n'
  const lines = [...places].map(([text, wheres]) =>
    paragraph('  ', '    ', `${listText(wheres, MAX_PLACES)}: ${text}`, width),
  )
  const rest = lines.length - MAX_PROBLEMS
  return `${countText(lines.length, 'problem')}\n${lines.slice(0, MAX_PROBLEMS).join('')}${rest > 0 ? `  and ${rest} more\n` : ''}`
}

const silentProblem = ({ host, daemon, reason }: SilentDaemon): Problem => ({
  where: `${host} ${daemon}`,
  text: `does not answer: ${reason}`,
})

const placed = ({ host, status }: HostStatus, nowMs: number): readonly Problem[] =>
  problemsOf(status, nowMs).map((text) => ({ where: `${host} ${status.kind}`, text }))

/** What one daemon knows to be wrong. */
export function problemsOf(status: DaemonStatus, nowMs: number): readonly string[] {
  const ago = (since: number): string => durationText(nowMs - since)
  const lasting = ({ url, since, error }: SessionStatus): string => `${url} for ${ago(since)}${because(error)}`
  const problems: string[] = []
  switch (status.kind) {
    case 'relay':
      problems.push(...(status.manifests?.problems ?? []), ...(status.udpRelay?.problems ?? []))
      for (const replica of status.replicas ?? [])
        if (replica.state !== 'connected') problems.push(`no session with the relay ${lasting(replica)}`)
      break
    case 'gateway':
      if (status.relay.state !== 'connected') problems.push(`no session to the relay ${lasting(status.relay)}`)
      for (const path of status.paths)
        if (path.rung === 'none' && nowMs - path.since > PATH_GRACE_MS)
          problems.push(`no path to pool ${path.pool} for ${ago(path.since)}: ${path.reason}`)
      problems.push(...status.problems, ...metadataProblems(status.metadata))
      break
    case 'agent':
      if (status.ops?.state === 'connecting')
        problems.push(`not to be reached by kubectl, without a session to the relay ${lasting(status.ops)}`)
      else
        for (const session of status.ops?.sessions ?? [])
          if (session.state === 'connecting' && nowMs - session.since > SESSION_GRACE_MS)
            problems.push(`reached by kubectl over other relays only, without a session to ${lasting(session)}`)
      problems.push(...status.problems, ...metadataProblems(status.metadata))
      break
  }
  return problems
}

function metadataProblems({ source, server, error, diskError }: MetadataStatus): readonly string[] {
  const lost = diskError === undefined ? [] : [`forgets with a restart what it learns now${because(diskError)}`]
  if (source === 'cloud') return lost
  const what = source === 'disk' ? 'works from what is on disk' : 'has no metadata yet'
  return [`${what}, since nothing comes from ${server}${because(error)}`, ...lost]
}

const because = (error: string | undefined): string => (error === undefined ? '' : `: ${error}`)
