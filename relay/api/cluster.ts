// The cluster that the embedded API shows: what the folder holds, with what nodes wrote through the API laid over it.
// Files are never written; a status is kept as a patch over the file's object, so that edits of the file still count.

import type { KubernetesObject } from '../../lib/k8s/objects.ts'
import { contestedIn } from './contested.ts'
import { combineFiles, impliedNamespaces, objectKey, type Contribution, type Folder } from './folder.ts'
import { builtIn, type Kind } from './kinds.ts'
import type { ManifestFile } from './manifest-file.ts'
import { composePatches, isObject, mergePatch, type Json, type JsonObject } from './patch.ts'
import { Registry, type Placed } from './registry.ts'
import type { Save, State, Written } from './state-client.ts'

/** Objects written through the API, all nodes together; a node has a Lease or three. */
const WRITTEN_MAX = 20_000
/** Of one such object as JSON. A status is kept as a patch, to which each write may add. */
export const WRITTEN_MAX_BYTES = 1 << 20

export type WriteRefusal = 'too many' | 'too large'

export class Cluster {
  readonly registry: Registry
  readonly #state: State
  readonly #written: Map<string, Written>
  #folder: Folder
  #contested: readonly string[] = []
  #loaded: boolean

  constructor(state: State) {
    const { byFile, written } = state.restored
    this.#state = state
    this.registry = new Registry(state.restored)
    this.#written = new Map(written.map((each) => [objectKey(each.kind, each.namespace, each.name), each]))
    this.#folder = {
      objects: new Map([...byFile.values()].flatMap((contribution) => [...contribution])),
      byFile,
      problems: [],
    }
    this.#loaded = this.#folder.objects.size > 0
  }

  /** False until something is known, from disk or by reading the folder: before that, "absent" would be a lie. */
  get loaded(): boolean {
    return this.#loaded
  }

  /** Objects of the folder. */
  get size(): number {
    return this.#folder.objects.size
  }

  get problems(): readonly string[] {
    return [...this.#folder.problems, ...this.#contested]
  }

  /** @param unread folders of which nothing is known now. */
  setFiles(files: ReadonlyMap<string, ManifestFile>, unread: readonly string[], nowMs: number): void {
    const before = this.#folder.byFile
    this.#folder = combineFiles(files, before, unread)
    // A status whose object is gone from the folder is nobody's.
    const erased = [...this.#written].filter(([key, { form }]) => form === 'status' && !this.#folder.objects.has(key))
    for (const [key] of erased) this.#written.delete(key)
    const wanted = this.#wanted()
    const changes = this.registry.planAll(wanted, nowMs)
    this.#save({
      changes,
      byFile: changedFiles(before, this.#folder.byFile),
      erased: erased.map(([, written]) => written),
    })
    this.#loaded = true
    this.registry.commit(changes)
    this.#contested = contestedIn(this.#folder.objects, (kind) => this.registry.list(builtIn(kind)))
  }

  /** @param patch a merge patch of the status of an object that the folder holds. */
  patchStatus(
    kind: Kind,
    namespace: string,
    name: string,
    patch: JsonObject,
    nowMs: number,
  ): KubernetesObject | WriteRefusal {
    const before = this.#written.get(objectKey(kind, namespace, name))?.object
    const object = composePatches(before as Json | undefined, { status: patch }) as KubernetesObject
    return this.#write({ kind, namespace, name, form: 'status', object }, nowMs)
  }

  /** Creates or replaces an object of its own. */
  put(
    kind: Kind,
    namespace: string,
    name: string,
    object: KubernetesObject,
    nowMs: number,
  ): KubernetesObject | WriteRefusal {
    if (this.#written.size >= WRITTEN_MAX && !this.#written.has(objectKey(kind, namespace, name))) return 'too many'
    return this.#write({ kind, namespace, name, form: 'object', object }, nowMs)
  }

  #write(written: Written, nowMs: number): KubernetesObject | WriteRefusal {
    const { kind, namespace, name } = written
    if (JSON.stringify(written.object).length > WRITTEN_MAX_BYTES) return 'too large'
    const key = objectKey(kind, namespace, name)
    this.#written.set(key, written)
    const effective = laidOver(this.#folder.objects.get(key), written)
    const changes = this.registry.plan({ kind, namespace, name, object: effective }, nowMs)
    this.#save({ changes, written: [written] })
    this.registry.commit(changes)
    return this.registry.get(kind, namespace, name)!
  }

  #wanted(): ReadonlyMap<string, Placed> {
    const wanted = new Map<string, Placed>(this.#folder.objects)
    for (const [key, written] of this.#written)
      wanted.set(key, { ...written, object: laidOver(wanted.get(key), written) })
    const kind = builtIn('Namespace')
    for (const object of impliedNamespaces([...wanted.values()].map(({ namespace }) => namespace))) {
      const name = object.metadata?.name ?? ''
      const key = objectKey(kind, '', name)
      if (!wanted.has(key)) wanted.set(key, { kind, namespace: '', name, object })
    }
    return wanted
  }

  #save(save: Save): void {
    this.#state.save(save, () => {
      const wanted = [...this.#wanted().values()]
      const standing = wanted.flatMap((placed) => {
        const object = this.registry.get(placed.kind, placed.namespace, placed.name)
        const version = Number(object?.metadata?.resourceVersion ?? 0)
        return object === undefined ? [] : [{ ...placed, type: 'ADDED' as const, object, version, previous: undefined }]
      })
      return {
        changes: [...standing, ...save.changes],
        byFile: this.#folder.byFile,
        written: [...this.#written.values()],
      }
    })
  }
}

/** A file that is gone changed too: it gives nothing. */
function changedFiles(before: Folder['byFile'], after: Folder['byFile']): Folder['byFile'] {
  const changed = new Map<string, Contribution>()
  for (const file of new Set([...before.keys(), ...after.keys()])) {
    const [old, now] = [before.get(file) ?? NOTHING, after.get(file) ?? NOTHING]
    if (old.size !== now.size || [...now].some(([key, object]) => old.get(key) !== object)) changed.set(file, now)
  }
  return changed
}

const NOTHING: Contribution = new Map()

function laidOver(base: Placed | undefined, { form, object }: Written): KubernetesObject {
  if (form === 'object' || base === undefined) return object
  const merged = mergePatch(base.object as Json, object as Json)
  return (isObject(merged) ? merged : base.object) as KubernetesObject
}
