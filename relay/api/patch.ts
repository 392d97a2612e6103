// JSON merge patches (RFC 7396), how two become one, and the lists that Kubernetes' strategic merge patch merges by key.

export type Json = null | boolean | number | string | readonly Json[] | JsonObject
export type JsonObject = { readonly [key: string]: Json }

export function mergePatch(target: Json | undefined, patch: Json): Json {
  if (!isObject(patch)) return patch
  const result: Record<string, Json> = isObject(target) ? { ...target } : {}
  for (const [key, value] of Object.entries(patch)) {
    if (value === null) delete result[key]
    else result[key] = mergePatch(result[key], value)
  }
  return result
}

/** One patch that does what both do, one after the other: nulls stay, for they still have to remove something. */
export function composePatches(first: Json | undefined, second: Json): Json {
  if (!isObject(first) || !isObject(second)) return second
  const result: Record<string, Json> = { ...first }
  for (const [key, value] of Object.entries(second)) result[key] = composePatches(result[key], value)
  return result
}

/** The merge patch that makes `target` have exactly the fields of `wanted`, at the first level. */
export function replacingPatch(target: Json | undefined, wanted: JsonObject): JsonObject {
  const gone = isObject(target) ? Object.keys(target).filter((key) => !(key in wanted)) : []
  return { ...Object.fromEntries(gone.map((key) => [key, null])), ...wanted }
}

/** Lists of a Node's status that are merged by a key (patchMergeKey in Kubernetes' types). */
const MERGE_KEYS: Readonly<Record<string, string>> = { conditions: 'type', addresses: 'type' }

/** A strategic merge patch of a status as a plain merge patch against what the status is now. */
export function plainStatusPatch(status: Json | undefined, patch: Json): Json {
  if (!isObject(patch)) return patch
  const result: Record<string, Json> = {}
  for (const [field, value] of Object.entries(patch)) {
    if (field.startsWith('$')) continue
    const key = Object.hasOwn(MERGE_KEYS, field) ? MERGE_KEYS[field] : undefined
    const known = isObject(status) ? status[field] : undefined
    if (key === undefined || !Array.isArray(value)) result[field] = value
    else result[field] = replacesList(value) ? withoutDirectives(value) : mergeList(known, value, key)
  }
  return result
}

function mergeList(known: Json | undefined, patch: readonly Json[], key: string): Json {
  const result: Json[] = Array.isArray(known) ? [...(known as readonly Json[])] : []
  for (const item of patch) {
    if (!isObject(item)) continue
    const index = result.findIndex((each) => isObject(each) && each[key] === item[key])
    if (item['$patch'] === 'delete') {
      if (index >= 0) result.splice(index, 1)
    } else if (index >= 0) result[index] = mergePatch(result[index], item)
    else result.push(item)
  }
  return result
}

const replacesList = (list: readonly Json[]) => list.some((item) => isObject(item) && item['$patch'] === 'replace')
const withoutDirectives = (list: readonly Json[]) => list.filter((item) => !(isObject(item) && '$patch' in item))

export function isObject(value: Json | undefined): value is JsonObject {
  return typeof value === 'object' && value !== null && !Array.isArray(value)
}
