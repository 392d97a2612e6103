// How objects are written in an answer: as they are, or as the rows of a Table, as the Accept header prefers.

import type { KubernetesObject } from '../../lib/k8s/objects.ts'
import { apiVersionOf, type Kind } from './kinds.ts'
import { tableOf, type TableOptions } from './table.ts'

export type Representation =
  | { readonly form: 'object' }
  | { readonly form: 'table'; readonly include: TableOptions['include'] }

/** Undefined if nothing that the client accepts can be served; protobuf among them. */
export function chooseRepresentation(
  accept: string | undefined,
  includeObject: string | null,
): Representation | undefined {
  for (const item of (accept || '*/*').split(',')) {
    const [type, ...parameters] = item.split(';').map((part) => part.trim())
    const values = new Map(parameters.map((parameter) => parameter.split('=', 2) as [string, string]))
    const as = values.get('as')
    if (type !== 'application/json' && type !== '*/*' && type !== 'application/*') continue
    if (as === undefined) return { form: 'object' }
    if (as === 'Table' && values.get('g') === 'meta.k8s.io' && values.get('v') === 'v1')
      return {
        form: 'table',
        include: includeObject === 'None' || includeObject === 'Object' ? includeObject : 'Metadata',
      }
  }
  return undefined
}

export function objectBody(object: KubernetesObject, kind: Kind, { representation, nowMs }: Presented): object {
  if (representation.form === 'object') return object
  const listMetadata = { resourceVersion: object.metadata?.resourceVersion ?? '' }
  return tableOf([object], { kind, include: representation.include, nowMs, listMetadata })
}

export type Presented = { readonly representation: Representation; readonly nowMs: number }
export type ListMetadata = {
  readonly resourceVersion: string
  readonly continue?: string
  readonly remainingItemCount?: number
}

export function listBody(
  objects: readonly KubernetesObject[],
  kind: Kind,
  metadata: ListMetadata,
  { representation, nowMs }: Presented,
): object {
  if (representation.form === 'table')
    return tableOf(objects, { kind, include: representation.include, nowMs, listMetadata: metadata })
  return { kind: `${kind.kind}List`, apiVersion: apiVersionOf(kind), metadata, items: objects }
}

/** The object of a bookmark: nothing but a version; `initialEventsEnd` marks the end of what was there at the start. */
export function bookmarkObject(kind: Kind, version: number, initialEventsEnd: boolean): KubernetesObject {
  const annotations = initialEventsEnd ? { annotations: { 'k8s.io/initial-events-end': 'true' } } : {}
  return {
    kind: kind.kind,
    apiVersion: apiVersionOf(kind),
    metadata: { resourceVersion: String(version), ...annotations },
  }
}
