// The two things that may be written: the status of a Node, and Leases. What a body means, before anything is done.

import type { KubernetesObject } from '../../lib/k8s/objects.ts'
import { apiVersionOf, type Kind } from './kinds.ts'
import { isObject, mergePatch, plainStatusPatch, replacingPatch, type Json, type JsonObject } from './patch.ts'
import type { ResourceRequest } from './request.ts'
import { checkFields, checkMetadata, type Mistake } from './schema.ts'
import {
  alreadyExists,
  badRequest,
  conflict,
  invalid,
  notFound,
  notServed,
  unsupportedMediaType,
  type Failure,
} from './status.ts'

export type WritePlan =
  | { readonly kind: 'status'; readonly patch: JsonObject }
  | { readonly kind: 'object'; readonly object: KubernetesObject; readonly created: boolean }
  | { readonly kind: 'refused'; readonly failure: Failure }

const MERGE = 'application/merge-patch+json'
const STRATEGIC = 'application/strategic-merge-patch+json'
const NAME = /^[a-z0-9]([-a-z0-9.]{0,251}[a-z0-9])?$/

/** @param known the object as it is now. @param contentType of the body, without parameters. */
export function planWrite(
  { resource, verb, namespace, subresource }: ResourceRequest,
  name: string,
  known: KubernetesObject | undefined,
  body: Json,
  contentType: string,
): WritePlan {
  if (!isObject(body)) return refuse(badRequest('the body is no JSON object'))
  const placed = resource.namespaced === (namespace !== '')
  const allowed = resource.writable === 'objects' && subresource === undefined && name !== '' && placed
  const isStatus = resource.writable === 'status' && subresource === 'status' && verb !== 'create'
  if ((!allowed && !isStatus) || !['create', 'update', 'patch'].includes(verb))
    return refuse(notServed(`${verb} of ${resource.plural}${subresource === undefined ? '' : `/${subresource}`}`))
  if (verb === 'patch' && contentType !== MERGE && contentType !== STRATEGIC)
    return refuse(unsupportedMediaType(contentType))
  if (verb === 'create' && known !== undefined) return refuse(alreadyExists(resource, name))
  if (verb !== 'create' && known === undefined) return refuse(notFound(resource, name))
  const wanted = fieldOf(body['metadata'], 'resourceVersion')
  if (verb !== 'create' && wanted !== undefined && wanted !== known?.metadata?.resourceVersion)
    return refuse(conflict(resource, name))
  if (verb !== 'patch') {
    const mismatch = mismatchOf(resource, name, body)
    if (mismatch !== undefined) return refuse(badRequest(mismatch))
  }
  return isStatus
    ? statusPlan(resource, known as Json | undefined, body, verb, contentType)
    : objectPlan(resource, namespace, name, known, body, verb)
}

function statusPlan(
  resource: Kind,
  known: Json | undefined,
  body: JsonObject,
  verb: string,
  contentType: string,
): WritePlan {
  const status = isObject(known) ? known['status'] : undefined
  const given = body['status'] ?? {}
  if (!isObject(given)) return refuse(invalid('status is not an object'))
  const patch =
    verb === 'update'
      ? replacingPatch(status, given)
      : contentType === STRATEGIC
        ? plainStatusPatch(status, given)
        : given
  const mistakes = mistakesIn(resource, { status: mergePatch(status, patch) })
  return mistakes === undefined ? { kind: 'status', patch: patch as JsonObject } : refuse(invalid(mistakes))
}

function objectPlan(
  resource: Kind,
  namespace: string,
  name: string,
  known: KubernetesObject | undefined,
  body: JsonObject,
  verb: string,
): WritePlan {
  if (!NAME.test(name)) return refuse(invalid(`metadata.name ${JSON.stringify(name)} is no DNS name`))
  const merged = verb === 'patch' ? mergePatch(known as Json | undefined, body) : body
  if (!isObject(merged)) return refuse(badRequest('the patch leaves no object'))
  const mistakes = mistakesIn(resource, merged)
  if (mistakes !== undefined) return refuse(invalid(mistakes))
  const { managedFields: _, ...metadata } = isObject(merged['metadata']) ? merged['metadata'] : {}
  const object = {
    ...merged,
    apiVersion: apiVersionOf(resource),
    kind: resource.kind,
    metadata: { ...metadata, name, ...(resource.namespaced && { namespace }) },
  }
  return { kind: 'object', object: object as KubernetesObject, created: known === undefined }
}

function mistakesIn(resource: Kind, object: JsonObject): string | undefined {
  const mistakes: Mistake[] = []
  checkFields(resource.kind, object, mistakes)
  if (object['metadata'] !== undefined) checkMetadata(object['metadata'], ['metadata'], mistakes)
  return mistakes.length === 0
    ? undefined
    : mistakes.map(({ path, message }) => `${path.join('.')} ${message}`).join('; ')
}

function mismatchOf(resource: Kind, name: string, body: JsonObject): string | undefined {
  if (body['kind'] !== undefined && body['kind'] !== resource.kind)
    return `kind ${JSON.stringify(body['kind'])} is not ${resource.kind}`
  if (body['apiVersion'] !== undefined && body['apiVersion'] !== apiVersionOf(resource))
    return `apiVersion ${JSON.stringify(body['apiVersion'])} is not ${apiVersionOf(resource)}`
  const given = fieldOf(body['metadata'], 'name')
  return given === name
    ? undefined
    : `the name of the object (${JSON.stringify(given)}) does not match the name on the URL (${name})`
}

const fieldOf = (value: Json | undefined, field: string) => (isObject(value) ? (value[field] ?? undefined) : undefined)
const refuse = (failure: Failure): WritePlan => ({ kind: 'refused', failure })
