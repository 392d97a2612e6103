// Follows this node's own pods, and finds the cgroups of those that the socket load balancer leaves alone. What was found
// stands in a file, since an agent that starts without the cloud must leave the same ones alone.

import { existsSync, readdirSync, readFileSync, renameSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import type { ApiClient } from '../lib/k8s/api-client.ts'
import { runInformer } from '../lib/k8s/informer-loop.ts'
import { PODS, type KubernetesObject, type Pod } from '../lib/k8s/objects.ts'
import type { Log } from '../lib/log.ts'
import { leadsToPods, leftAlone, podOf } from './pods.ts'

export type PodsOptions = {
  readonly client: ApiClient
  readonly node: string
  /** Where groups are looked for. */
  readonly cgroups: () => string
  readonly file: string
  readonly log: Log
}
export type PodsLoop = {
  /** Folders of the groups of pods that are left alone; costs a look at the folders of cgroup2 while one is not found. */
  readonly groups: () => readonly string[]
  readonly done: Promise<void>
}

const DEPTH_MAX = 4

export function followPods({ client, node, cgroups, file, log }: PodsOptions, signal: AbortSignal): PodsLoop {
  /** By namespace and name, what the pod's group is named by. */
  const left = new Map<string, string>()
  /** Since the last list began. */
  const seen = new Set<string>()
  let synced = false
  let failing = false
  let groups = readFile(file)
  let complete = true

  const changed = (): void => void (complete = false)
  const put = (pod: Pod): void => {
    seen.add(keyOf(pod))
    // Not every server selects by fields.
    const id = pod.spec?.nodeName === node ? leftAlone(pod) : undefined
    if (id === left.get(keyOf(pod))) return
    if (id === undefined) left.delete(keyOf(pod))
    else left.set(keyOf(pod), id)
    changed()
  }
  const find = (): void => {
    const wanted = new Set(left.values())
    const found = wanted.size === 0 ? new Map<string, string>() : podGroups(cgroups(), 0)
    const now = [...wanted].flatMap((id) => found.get(id) ?? []).sort()
    complete = now.length === wanted.size
    if (now.join('\n') === groups.join('\n')) return
    groups = now
    log.info({ pods: now.length }, 'pods that BPF leaves to nft')
    try {
      writeFileSync(`${file}.tmp`, now.map((group) => `${group}\n`).join(''))
      renameSync(`${file}.tmp`, file)
    } catch (err) {
      log.warn({ err }, 'which pods BPF leaves to nft cannot be written down')
    }
  }

  const done = runInformer(
    { client, resource: PODS, selection: { fieldSelector: `spec.nodeName=${node}` } },
    {
      listing: () => seen.clear(),
      listed: () => {
        for (const key of left.keys()) if (!seen.has(key)) left.delete(key)
        synced = true
        changed()
      },
      put: (pod) => put(pod as Pod),
      remove: (pod) => {
        if (left.delete(keyOf(pod))) changed()
      },
      heard: () => void (failing = false),
      failed: (err) => {
        if (!failing) log.warn({ err }, 'pods of this node cannot be followed: BPF leaves alone those that were known')
        failing = true
      },
    },
    signal,
  )
  return {
    groups: () => {
      if (synced && !complete) find()
      return groups
    },
    done,
  }
}

const keyOf = ({ metadata }: KubernetesObject) => `${metadata?.namespace}/${metadata?.name}`

/** Folders of the groups of pods, by what they are named by. */
function podGroups(folder: string, depth: number): Map<string, string> {
  const found = new Map<string, string>()
  for (const name of foldersIn(folder)) {
    const path = join(folder, name)
    const pod = podOf(name)
    if (pod !== undefined) found.set(pod, path)
    else if (depth < DEPTH_MAX && leadsToPods(name))
      for (const [id, group] of podGroups(path, depth + 1)) found.set(id, group)
  }
  return found
}

/** None where it has just gone. */
function foldersIn(folder: string): readonly string[] {
  try {
    return readdirSync(folder, { withFileTypes: true }).flatMap((entry) => (entry.isDirectory() ? [entry.name] : []))
  } catch {
    return []
  }
}

const readFile = (file: string): readonly string[] =>
  existsSync(file)
    ? readFileSync(file, 'utf8')
        .split('\n')
        .filter((line) => line !== '')
    : []
