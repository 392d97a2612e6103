// The folder as one set of objects: files side by side, each object once, and what a broken file held before it broke.

import type { KubernetesObject } from '../../lib/k8s/objects.ts'
import { takersOf } from './contested.ts'
import { apiVersionOf, builtIn, resourceKeyOf, type Kind } from './kinds.ts'
import type { ManifestFile, ManifestObject } from './manifest-file.ts'

/** Objects by `objectKey`. */
export type Contribution = ReadonlyMap<string, ManifestObject>
export type Folder = {
  readonly objects: ReadonlyMap<string, ManifestObject>
  /** What each file gives to `objects`, to be kept should it break. */
  readonly byFile: ReadonlyMap<string, Contribution>
  readonly problems: readonly string[]
}

/** Unique over all kinds; sorts by resource, namespace, name. */
export const objectKey = (kind: Kind, namespace: string, name: string): string =>
  `${resourceKeyOf(kind)}\0${namespace}\0${name}`

/**
 * @param previous the folder before this change; what a file with mistakes lacks now is taken from there.
 * @param unread folders that could not be read, `''` being the whole; what was in them is taken from there too.
 */
export function combineFiles(
  files: ReadonlyMap<string, ManifestFile>,
  previous: Folder['byFile'],
  unread: readonly string[] = [],
): Folder {
  const problems: string[] = []
  const objects = new Map<string, ManifestObject>()
  const byFile = new Map<string, Map<string, ManifestObject>>()
  const inOrder = [...files].toSorted(([a], [b]) => (a < b ? -1 : 1))

  const add = (file: string, key: string, object: ManifestObject): void => {
    objects.set(key, object)
    const contribution = byFile.get(file) ?? new Map<string, ManifestObject>()
    byFile.set(file, contribution.set(key, object))
  }
  for (const [file, { objects: present, problems: mistakes }] of inOrder) {
    problems.push(...mistakes)
    for (const object of present) {
      const key = keyOf(object)
      const first = objects.get(key)
      if (first === undefined) add(file, key, object.flawed ? (lastGood(previous, file, key) ?? object) : object)
      else
        problems.push(
          `${object.place}: ${titleOf(object)} is also at ${first.place}: this one is left out; remove one of them`,
        )
    }
  }
  for (const [file, { objects: present, problems: mistakes }] of inOrder) {
    if (mistakes.length === 0) continue
    const kept = [...(previous.get(file) ?? [])].filter(([key]) => !objects.has(key))
    for (const [key, object] of kept) add(file, key, object)
    const replaced = present.filter((object) => object.flawed && lastGood(previous, file, keyOf(object)) !== undefined)
    const count = kept.length + replaced.length
    if (count > 0)
      problems.push(
        `${file}: ${count} ${count === 1 ? 'object is' : 'objects are'} served as last known good until it is corrected`,
      )
  }
  for (const [file, contribution] of previous) {
    if (files.has(file) || !unread.some((folder) => folder === '' || file.startsWith(`${folder}/`))) continue
    for (const [key, object] of contribution) if (!objects.has(key)) add(file, key, object)
  }
  const before = new Map([...previous.values()].flatMap((contribution) => [...contribution]))
  const takers = takersOf(objects, before)
  for (const [file, contribution] of byFile)
    for (const key of contribution.keys()) {
      const taker = takers.get(key)
      if (taker === undefined) continue
      add(file, key, taker.before)
      problems.push(taker.problem)
    }
  return { objects, byFile, problems }
}

const keyOf = ({ kind, namespace, name }: ManifestObject) => objectKey(kind, namespace, name)

function lastGood(previous: Folder['byFile'], file: string, key: string): ManifestObject | undefined {
  const object = previous.get(file)?.get(key)
  return object?.flawed ? undefined : object
}

/** Namespaces that are there because something is in them, or because every cluster has them. */
export function impliedNamespaces(namespaces: Iterable<string>): readonly KubernetesObject[] {
  const kind = builtIn('Namespace')
  const names = new Set(['default', 'kube-system', 'kube-node-lease', 'fulmar-system', ...namespaces])
  names.delete('')
  return [...names].map((name) => ({
    apiVersion: apiVersionOf(kind),
    kind: kind.kind,
    metadata: { name, labels: { 'kubernetes.io/metadata.name': name } },
    status: { phase: 'Active' },
  }))
}

const titleOf = ({ kind, namespace, name }: ManifestObject) =>
  `${kind.kind} ${namespace === '' ? name : `${namespace}/${name}`}`
