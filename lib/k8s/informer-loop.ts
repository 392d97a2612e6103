// Follows one resource: list, then watch from there; again after every end, with back-off after failures. What it
// tells its sink is level-triggered: a list replaces everything, so whatever was missed in between does not matter.

import { setTimeout as sleep } from 'node:timers/promises'
import { backoffMs, type Backoff } from '../backoff.ts'
import type { ApiClient, Selection } from './api-client.ts'
import { ApiError, isExpired, isNotFound } from './api-error.ts'
import type { KubernetesObject, Resource } from './objects.ts'

export type InformerSource = {
  readonly client: ApiClient
  readonly resource: Resource
  /** What is asked for of the resource, where that is not all. */
  readonly selection?: Selection
}
export type InformerSink = {
  /** A list begins; it may break off, and begin again. */
  readonly listing: () => void
  /** All of the list was put since it began; whatever was not is gone. */
  readonly listed: () => void
  /** @param again reads the object once more, so that it need not be held for those who need it later. */
  readonly put: (object: KubernetesObject, again: () => KubernetesObject) => void
  readonly remove: (object: KubernetesObject) => void
  /** The server is there and was heard just now. */
  readonly heard: () => void
  /** What is known may be out of date from now on; called for each failed attempt. */
  readonly failed: (error: Error) => void
}

const BACKOFF: Backoff = { baseMs: 200, capMs: 15_000 }
/** How often to look whether an optional resource was installed. */
const ABSENT_RETRY_MS = 60_000
/** A watch that ends sooner was refused in effect; again at once would be a busy loop. */
const WATCH_MIN_MS = 1_000
/** Watches end after 5 to 10 minutes, as client-go's do, so that connections spread over replicas again. */
const WATCH_SECONDS = 300

/** Ends when the signal aborts; never rejects. */
export async function runInformer(source: InformerSource, sink: InformerSink, signal: AbortSignal): Promise<void> {
  const { client, resource, selection = {} } = source
  const served = [resource, ...(resource.olderVersions ?? []).map((version) => ({ ...resource, version }))]
  let asked = 0
  let version: string | undefined
  let failures = 0
  const pause = (ms: number) => sleep(ms, undefined, { signal }).catch(() => undefined)

  while (!signal.aborted) {
    try {
      if (version === undefined) {
        version = await list({ client, resource: served[asked]!, selection }, sink, signal)
      }
      const timeoutSeconds = Math.round(WATCH_SECONDS * (1 + Math.random()))
      const options = { ...selection, resourceVersion: version, timeoutSeconds }
      const events = await client.watch(served[asked]!, signal, options)
      const since = performance.now()
      sink.heard()
      for await (const event of events) {
        failures = 0
        version = event.resourceVersion
        if (event.type === 'DELETED') sink.remove(event.object)
        else if (event.type !== 'BOOKMARK') sink.put(event.object, event.again)
        sink.heard()
      }
      if (performance.now() - since < WATCH_MIN_MS) await pause(backoffMs(BACKOFF, ++failures, Math.random()))
      else failures = 0
    } catch (error) {
      if (signal.aborted) return
      if (isNotFound(error) && isOptional(resource)) {
        version = undefined
        asked = (asked + 1) % served.length
        if (asked !== 0) continue
        // Its definition is not installed, which is a normal cluster.
        sink.listing()
        sink.listed()
        sink.heard()
        await pause(ABSENT_RETRY_MS)
        continue
      }
      if (isExpired(error)) version = undefined
      else sink.failed(error as Error)
      const askedMs = error instanceof ApiError ? (error.retryAfterMs ?? 0) : 0
      await pause(Math.max(Math.min(askedMs, BACKOFF.capMs), backoffMs(BACKOFF, ++failures, Math.random())))
    }
  }
}

/** By itself, since a function that waits for changes would hold on to the last page. @returns the list's version. */
async function list(
  { client, resource, selection }: InformerSource,
  sink: InformerSink,
  signal: AbortSignal,
): Promise<string> {
  let version = ''
  sink.listing()
  for await (const { items, resourceVersion, again } of client.pages(resource, signal, selection)) {
    items.forEach((item, i) => sink.put(item, () => again()[i]!))
    version = resourceVersion
  }
  sink.listed()
  return version
}

/** Resources of custom definitions may be absent; built-in groups have no dot, or end in .k8s.io. */
function isOptional({ group }: Resource): boolean {
  return group.includes('.') && !group.endsWith('.k8s.io')
}
