// Watches: one JSON line per change, until the client goes, the time is over, or the client reads too slowly.

import type { ServerResponse } from 'node:http'
import type { KubernetesObject } from '../../lib/k8s/objects.ts'
import type { Kind } from './kinds.ts'
import type { Change, Registry } from './registry.ts'
import { bookmarkObject, objectBody, type Representation } from './representation.ts'
import type { Predicate } from './selectors.ts'
import { expired, statusObject } from './status.ts'

export type WatchRequest = {
  readonly kind: Kind
  readonly matches: Predicate
  /** Changes after this version; undefined for all that is there, then changes. */
  readonly from: number | undefined
  readonly bookmarks: boolean
  /** Mark the end of what was there at the start (sendInitialEvents). */
  readonly marksInitial: boolean
  readonly timeoutMs: number
  readonly representation: Representation
}

const BOOKMARK_MS = 10_000
/** Of a client that does not read; it is cut off and resumes from the last version that it has seen. */
const BACKLOG_MAX_BYTES = 4 << 20

/** Ends when the response is closed, by whomever. */
export function serveWatch(registry: Registry, response: ServerResponse, watch: WatchRequest): void {
  const { kind, matches, from } = watch
  response.writeHead(200, { 'content-type': 'application/json', 'cache-control': 'no-cache' })
  response.flushHeaders()

  const missed = from === undefined ? undefined : registry.since(kind, from)
  if (from !== undefined && missed === undefined) {
    const failure = expired(`too old resource version: ${from} (${registry.version}); list again`)
    response.end(`${JSON.stringify({ type: 'ERROR', object: statusObject(failure) })}\n`)
    return
  }
  const write = (line: string): void => {
    if (response.writableLength > BACKLOG_MAX_BYTES) response.destroy()
    else response.write(line)
  }
  const send = (type: string, object: KubernetesObject): void => {
    if (watch.representation.form === 'object') return write(`{"type":"${type}","object":${jsonOf(object)}}\n`)
    const body = objectBody(object, kind, { representation: watch.representation, nowMs: Date.now() })
    write(`${JSON.stringify({ type, object: body })}\n`)
  }
  const onChange = (change: Change): void => {
    const seen = seenThrough(change, matches)
    if (seen !== undefined) send(seen, change.object)
  }
  const bookmark = (initialEventsEnd: boolean): void =>
    send('BOOKMARK', bookmarkObject(kind, registry.version, initialEventsEnd))

  for (const object of from === undefined ? registry.list(kind).filter(matches) : []) send('ADDED', object)
  for (const change of missed ?? []) onChange(change)
  if (watch.marksInitial) bookmark(true)
  const unsubscribe = registry.subscribe(kind, onChange)
  const ticker = watch.bookmarks ? setInterval(bookmark, BOOKMARK_MS, false) : undefined
  const timer = setTimeout(() => {
    // The last word is a version, so that the next watch starts where this one ended.
    if (watch.bookmarks) bookmark(false)
    response.end()
  }, watch.timeoutMs)
  response.once('close', () => {
    unsubscribe()
    clearInterval(ticker)
    clearTimeout(timer)
  })
}

/** What a change is to someone who sees only what matches: objects come into sight and go out of it. */
function seenThrough({ type, object, previous }: Change, matches: Predicate): Change['type'] | undefined {
  const before = previous !== undefined && matches(previous)
  const after = type !== 'DELETED' && matches(object)
  if (before) return after ? 'MODIFIED' : 'DELETED'
  return after ? 'ADDED' : undefined
}

/** One change goes to a thousand watchers one after the other: the text of the last object is worth keeping. */
let last: { readonly object: KubernetesObject; readonly text: string } | undefined
function jsonOf(object: KubernetesObject): string {
  if (last?.object !== object) last = { object, text: JSON.stringify(object) }
  return last.text
}
