// Lists and watches as they are asked for: selectors, pages, and which version is meant, with what Kubernetes refuses.

import type { KubernetesObject } from '../../lib/k8s/objects.ts'
import { isTrue, type ResourceRequest } from './request.ts'
import { fieldPredicate, labelPredicate, SelectorError, type Predicate } from './selectors.ts'
import { badRequest, expired, invalid, type Failure } from './status.ts'
import type { WatchRequest } from './watch-server.ts'

export type ListOptions =
  | { readonly kind: 'refused'; readonly failure: Failure }
  | { readonly kind: 'watch'; readonly watch: Omit<WatchRequest, 'kind' | 'representation'> }
  | {
      readonly kind: 'list'
      readonly matches: Predicate
      readonly limit: number
      /** Go on after this object; with the version of the first page. */
      readonly after: string | undefined
      readonly since: number | undefined
    }

/** A watch without a time of its own ends after 30 to 60 minutes, as in Kubernetes. */
const WATCH_MIN_MS = 30 * 60_000

/** @param version the newest. @param random in [0, 1). */
export function parseListOptions(request: ResourceRequest, version: number, random: number): ListOptions {
  const { query, verb } = request
  let matches: Predicate
  try {
    matches = predicateOf(request)
  } catch (error) {
    if (!(error instanceof SelectorError)) throw error
    return refuse(badRequest(error.message))
  }
  const text = query.get('resourceVersion') ?? ''
  if (!/^\d*$/.test(text))
    return refuse(badRequest(`Invalid value: ${JSON.stringify(text)}: resourceVersion is no number`))
  // '' and 0 ask for anything; so does a list from a version that is not the newest: newer is never wrong.
  const from = text === '' || text === '0' ? undefined : Number(text)
  if (verb !== 'watch') return listOptions(query, matches, from, version)

  const marksInitial = isTrue(query.get('sendInitialEvents'))
  const bookmarks = isTrue(query.get('allowWatchBookmarks'))
  if (marksInitial && (!bookmarks || query.get('resourceVersionMatch') !== 'NotOlderThan'))
    return refuse(invalid('sendInitialEvents: requires allowWatchBookmarks and resourceVersionMatch=NotOlderThan'))
  const seconds = Number(query.get('timeoutSeconds') ?? 0)
  const timeoutMs = seconds > 0 ? seconds * 1000 : WATCH_MIN_MS * (1 + random)
  const start = marksInitial ? undefined : from
  return {
    kind: 'watch',
    watch: { matches, from: start, bookmarks, marksInitial, timeoutMs: Math.min(timeoutMs, WATCH_MIN_MS * 2) },
  }
}

/** One page: what matches after `after`, at most `limit` (0: all). */
export function pageOf(
  objects: readonly KubernetesObject[],
  {
    matches,
    limit,
    after,
  }: { readonly matches: Predicate; readonly limit: number; readonly after: string | undefined },
): { readonly items: readonly KubernetesObject[]; readonly next: string | undefined; readonly remaining: number } {
  const rest = objects.filter((object) => (after === undefined || positionOf(object) > after) && matches(object))
  const items = limit > 0 ? rest.slice(0, limit) : rest
  const more = rest.length > items.length
  return { items, next: more ? positionOf(items.at(-1)!) : undefined, remaining: rest.length - items.length }
}

export const nextToken = (version: number, after: string): string =>
  Buffer.from(JSON.stringify({ v: version, after })).toString('base64url')

function listOptions(
  query: URLSearchParams,
  matches: Predicate,
  from: number | undefined,
  version: number,
): ListOptions {
  const limit = Number(query.get('limit') ?? 0)
  if (!Number.isInteger(limit) || limit < 0) return refuse(badRequest('limit is no whole number'))
  const token = query.get('continue')
  if (token) {
    const position = parseToken(token)
    return position === undefined
      ? refuse(badRequest('continue key is not valid'))
      : { kind: 'list', matches, limit, after: position.after, since: position.version }
  }
  if (from !== undefined && from > version)
    return refuse({
      code: 504,
      reason: 'Timeout',
      message: `Too large resource version: ${from}, current: ${version}`,
      retryAfterSeconds: 1,
    })
  if (query.get('resourceVersionMatch') === 'Exact' && from !== version)
    return refuse(expired(`The resourceVersion ${from} for the provided list is too old`))
  return { kind: 'list', matches, limit, after: undefined, since: undefined }
}

function parseToken(token: string): { readonly version: number; readonly after: string } | undefined {
  try {
    const { v, after } = JSON.parse(Buffer.from(token, 'base64url').toString()) as { v?: unknown; after?: unknown }
    return Number.isSafeInteger(v) && typeof after === 'string' ? { version: v as number, after } : undefined
  } catch {
    return undefined
  }
}

function predicateOf({ query, namespace, name }: ResourceRequest): Predicate {
  const inNamespace: Predicate | undefined =
    namespace === '' ? undefined : ({ metadata }) => metadata?.namespace === namespace
  // A watch of one object is a watch of a list of one.
  const named: Predicate | undefined = name === undefined ? undefined : ({ metadata }) => metadata?.name === name
  const labels = labelPredicate(query.get('labelSelector') ?? '')
  const fields = fieldPredicate(query.get('fieldSelector') ?? '')
  const all = [inNamespace, named, labels, fields].filter((predicate) => predicate !== undefined)
  return (object) => all.every((predicate) => predicate(object))
}

/** Sorts as lists do: by namespace, then name. */
const positionOf = ({ metadata }: KubernetesObject) => `${metadata?.namespace ?? ''}\0${metadata?.name ?? ''}`
const refuse = (failure: Failure): ListOptions => ({ kind: 'refused', failure })
