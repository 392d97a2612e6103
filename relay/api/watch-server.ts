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

/** Resolves when the watch has caught up; it goes on until the response is closed, by whomever. */
export async function serveWatch(registry: Registry, response: ServerResponse, watch: WatchRequest): Promise<void> {
  const { kind, matches } = watch
  response.writeHead(200, { 'content-type': 'application/json', 'cache-control': 'no-cache' })
  response.flushHeaders()

  // An ended one may wait for its reader before it closes; to write then would be an error that nobody catches.
  const isOver = (): boolean => response.writableEnded || response.destroyed
  const send = (type: string, object: KubernetesObject): void => {
    if (isOver()) return
    if (watch.representation.form === 'object') {
      response.write(`{"type":"${type}","object":${jsonOf(object)}}\n`)
      return
    }
    const body = objectBody(object, kind, { representation: watch.representation, nowMs: Date.now() })
    response.write(`${JSON.stringify({ type, object: body })}\n`)
  }
  const sendChange = (change: Change): void => {
    const seen = seenThrough(change, matches)
    if (seen !== undefined) send(seen, change.object)
  }
  const bookmark = (version: number, initialEventsEnd = false): void =>
    send('BOOKMARK', bookmarkObject(kind, version, initialEventsEnd))

  let live = false
  const timer = setTimeout(() => {
    // Whoever does not read now would hold the connection for ever.
    if (response.writableNeedDrain) return response.destroy()
    // The last word is a version, so that the next watch starts where this one ended.
    if (live && watch.bookmarks) bookmark(registry.version)
    response.end()
  }, watch.timeoutMs)
  response.once('close', () => clearTimeout(timer))

  // What there is already may be more than may wait for a slow reader, and is written as fast as it is read.
  let version = watch.from ?? registry.version
  for (const object of watch.from === undefined ? registry.list(kind) : []) {
    if (!matches(object)) continue
    send('ADDED', object)
    if (response.writableNeedDrain) await drained(response)
    if (isOver()) return
  }
  if (watch.marksInitial) bookmark(version, true)
  for (let missed: readonly Change[] | undefined; missed?.length !== 0;) {
    missed = registry.since(kind, version)
    if (missed === undefined) {
      const failure = expired(`too old resource version: ${version} (${registry.version}); list again`)
      response.end(`${JSON.stringify({ type: 'ERROR', object: statusObject(failure) })}\n`)
      return
    }
    for (const change of missed) {
      sendChange(change)
      version = change.version
      if (response.writableNeedDrain) await drained(response)
      if (isOver()) return
    }
  }

  live = true
  const unsubscribe = registry.subscribe(kind, (change) => {
    if (response.writableLength > BACKLOG_MAX_BYTES) response.destroy()
    else sendChange(change)
  })
  const ticker = watch.bookmarks ? setInterval(() => bookmark(registry.version), BOOKMARK_MS) : undefined
  response.once('close', () => {
    unsubscribe()
    clearInterval(ticker)
  })
}

/** Resolves when the client has read what was written, or is gone. */
function drained(response: ServerResponse): Promise<void> {
  return new Promise((resolve) => {
    const done = (): void => {
      response.off('drain', done)
      response.off('close', done)
      resolve()
    }
    response.on('drain', done)
    response.on('close', done)
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
