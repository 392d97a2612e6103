// Follows which nodes the cluster names, and keeps it on disk: a node that is deleted while the relay is away is found so
// when it is back.

import { join } from 'node:path'
import { isDeepStrictEqual } from 'node:util'
import type { ApiClient } from '../lib/k8s/api-client.ts'
import { runInformer } from '../lib/k8s/informer-loop.ts'
import { NODES, type KubernetesObject } from '../lib/k8s/objects.ts'
import type { Log } from '../lib/log.ts'
import { issuerFolder } from '../lib/net/authority.ts'
import { PRIVATE_MODE, readIfPresent, writeWhole } from '../lib/net/files.ts'
import { Members, NOTHING_KEPT, type Kept } from '../lib/members.ts'
import { pause } from '../lib/net/lifetime.ts'

export type NodeSource = {
  /** The same value as before where nothing changed; undefined while it is not known. */
  readonly nodes: () => readonly KubernetesObject[] | undefined
  /** See Members. */
  readonly uidsCount: boolean
}

export type MembersOptions = {
  readonly stateDir: string
  readonly source: NodeSource
  /** How long a certificate can count, renewals in its grace included. */
  readonly longestMs: number
  readonly log: Log
}
export type MembersLoop = {
  readonly members: Members
  /** Follows the source until the signal aborts. @param onDeleted once for each node that is found deleted. */
  readonly run: (onDeleted: (node: string) => void, signal: AbortSignal) => Promise<void>
}

const LOOK_MS = 500

/** Resolves once the disk is read. */
export async function openMembers({ stateDir, source, longestMs, log }: MembersOptions): Promise<MembersLoop> {
  const file = join(issuerFolder(stateDir), 'nodes.json')
  const members = new Members(read(await readIfPresent(file), file, log), source.uidsCount)
  let seen: readonly KubernetesObject[] | undefined

  const keep = async (): Promise<void> => {
    try {
      await writeWhole(file, JSON.stringify(members.kept(Date.now(), longestMs)), PRIVATE_MODE)
    } catch (err) {
      log.warn(
        { err, path: file },
        'cannot save which nodes there are; one deleted while this relay restarts is not noticed',
      )
    }
  }
  const look = async (onDeleted: (node: string) => void): Promise<void> => {
    const objects = source.nodes()
    if (objects === undefined || (objects === seen && !members.isWaiting)) return
    seen = objects
    const nodes = new Map(objects.map(({ metadata }) => [metadata?.name ?? '', metadata?.uid ?? '']))
    const { gone, isNews } = members.look(nodes, Date.now(), performance.now())
    for (const node of gone) {
      log.info({ node }, 'node deleted; its certificate counts no more, and its sessions end')
      onDeleted(node)
    }
    if (isNews) await keep()
  }
  return {
    members,
    async run(onDeleted, signal) {
      for (; !signal.aborted; await pause(LOOK_MS, signal)) await look(onDeleted)
    },
  }
}

function read(text: string | undefined, file: string, log: Log): Kept {
  if (text === undefined) return NOTHING_KEPT
  try {
    const { objects, deleted } = JSON.parse(text) as Partial<Kept>
    return { objects: objects ?? {}, deleted: deleted ?? {} }
  } catch (err) {
    log.warn({ err, path: file }, 'which nodes there were cannot be read; those deleted before are not known as such')
    return NOTHING_KEPT
  }
}

/** The nodes of a Kubernetes API, of each what counts here and for ways to it. What was known stays while the API is away. */
export function followNodeNames(
  client: ApiClient,
  log: Log,
  signal: AbortSignal,
): NodeSource & { done: Promise<void> } {
  const byName = new Map<string, KubernetesObject>()
  let present: Set<string> | undefined
  let list: readonly KubernetesObject[] | undefined
  let synced = false
  let away = false
  const done = runInformer(
    { client, resource: NODES },
    {
      listing: () => (present = new Set()),
      listed: () => {
        for (const name of byName.keys()) if (present?.has(name) === false) byName.delete(name)
        present = undefined
        list = undefined
        synced = true
      },
      put: (object) => {
        const name = object.metadata?.name ?? ''
        present?.add(name)
        const node = partOf(object)
        // Kubelets write their status every few minutes, and most of that is nothing here.
        if (isDeepStrictEqual(byName.get(name), node)) return
        byName.set(name, node)
        list = undefined
      },
      remove: ({ metadata }) => {
        byName.delete(metadata?.name ?? '')
        list = undefined
      },
      heard: () => {
        if (away) log.info({ server: client.server }, 'the Kubernetes API is back')
        away = false
      },
      failed: (err) => {
        if (!away) log.warn({ err, server: client.server }, 'nodes that are deleted now are not noticed')
        away = true
      },
    },
    signal,
  )
  return { nodes: () => (synced ? (list ??= [...byName.values()]) : undefined), uidsCount: true, done }
}

/** Nodes weigh some 10 KB each; of that, this. */
function partOf({
  metadata,
  spec,
  status,
}: KubernetesObject & { readonly spec?: unknown; readonly status?: unknown }): KubernetesObject {
  const { podCIDR, podCIDRs } = (spec ?? {}) as { podCIDR?: unknown; podCIDRs?: unknown }
  const { addresses } = (status ?? {}) as { addresses?: unknown }
  const { name = '', uid = '' } = metadata ?? {}
  return { metadata: { name, uid }, spec: { podCIDR, podCIDRs }, status: { addresses } } as KubernetesObject
}
