// What the kubelets of a lab go on to do: a node whose object was deleted and is back is reported again, for which the
// folder that is served is followed, and tokens that pods mount are renewed. Everything else that kubelets do in a cluster is
// nothing that a lab needs.

import { watch } from 'node:fs'
import { setTimeout as sleep } from 'node:timers/promises'
import { readFolder } from './folder.ts'
import type { Kubernetes } from './kubernetes.ts'

/** An editor writes a file in many steps. */
const SETTLE_MS = 200
/** What was written as the lab came up is good for longer. */
const RENEW_FIRST_MS = 600_000
const RETRY_MS = 60_000

/** Ends when the signal aborts. @param report says of these nodes what their kubelets do. */
export async function followNodes(
  manifests: string,
  report: (names: readonly string[]) => Promise<void>,
  signal: AbortSignal,
): Promise<void> {
  let before = nodesIn(manifests)
  // Looked at with each change: one that is back before the folder has settled was away all the same.
  const away = new Set<string>()
  let changes = Promise.withResolvers<void>()
  const onChange = (): void => {
    const now = nodesIn(manifests)
    for (const name of before) if (!now.includes(name)) away.add(name)
    changes.resolve()
  }
  watch(manifests, { recursive: true, persistent: false, signal }, onChange).on('error', () => {})
  signal.addEventListener('abort', () => changes.resolve(), { once: true })
  while (!signal.aborted) {
    await changes.promise
    changes = Promise.withResolvers()
    await sleep(SETTLE_MS)
    if (signal.aborted) return
    const now = nodesIn(manifests)
    const back = now.filter((name) => away.has(name) || !before.includes(name))
    for (const name of back) away.delete(name)
    if (back.length > 0) await report(back)
    before = now
  }
}

/** Writes what pods mount anew before their tokens end. Ends when the signal aborts. */
export async function followVolumes(
  kubernetes: Kubernetes,
  progress: (line: string) => void,
  signal: AbortSignal,
): Promise<void> {
  let dueMs = RENEW_FIRST_MS
  for (;;) {
    await sleep(dueMs, undefined, { signal, ref: false }).catch(() => undefined)
    if (signal.aborted) return
    try {
      dueMs = await kubernetes.renewVolumes()
    } catch (error) {
      progress((error as Error).message)
      dueMs = RETRY_MS
    }
  }
}

/** None while the folder is away: all of them come back with it. */
function nodesIn(manifests: string): readonly string[] {
  try {
    return readFolder(manifests).nodes.flatMap(({ metadata }) => metadata?.name ?? [])
  } catch {
    return []
  }
}
