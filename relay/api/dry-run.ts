// A write that is only tried (`kubectl apply --server-side --dry-run=server`): an object of any kind is taken or refused as it
// would be in the folder, and nothing is kept. Fields of kinds that the mesh does not read are not looked at. Pure.

import type { KubernetesObject } from '../../lib/k8s/objects.ts'
import { apiVersionOf, builtIn } from './kinds.ts'
import { parseManifest } from './manifest-file.ts'
import { isObject, mergePatch, type Json } from './patch.ts'
import type { ResourceRequest } from './request.ts'
import {
  alreadyExists,
  badRequest,
  invalid,
  notFound,
  notServed,
  unsupportedMediaType,
  type Failure,
} from './status.ts'

export type DryRun =
  | { readonly kind: 'taken'; readonly object: KubernetesObject; readonly created: boolean }
  | { readonly kind: 'refused'; readonly failure: Failure }

const APPLY = 'application/apply-patch+yaml'
const MERGE = 'application/merge-patch+json'

export function planDryRun(
  { resource, verb, namespace, subresource, query }: ResourceRequest,
  {
    name,
    known,
    hasNamespace,
    body,
    contentType,
  }: {
    readonly name: string
    readonly known: KubernetesObject | undefined
    readonly hasNamespace: boolean
    readonly body: Json
    /** Of the body, without parameters. */
    readonly contentType: string
  },
): DryRun {
  const all = query.getAll('dryRun')
  if (all.length !== 1 || all[0] !== 'All')
    return refuse(invalid(`dryRun=${JSON.stringify(all.join())}: the one value that there is is All`))
  const tried = verb === 'create' || verb === 'update' || verb === 'patch'
  if (!tried || subresource !== undefined || resource.namespaced !== (namespace !== ''))
    return refuse(notServed(`a dry run of ${verb}`))
  if (verb === 'patch' && contentType !== APPLY && contentType !== MERGE)
    return refuse(unsupportedMediaType(contentType))
  const isApply = verb === 'patch' && contentType === APPLY
  if (resource.namespaced && !hasNamespace) return refuse(notFound(builtIn('Namespace'), namespace))
  if (verb === 'create' && known !== undefined) return refuse(alreadyExists(resource, name))
  if (verb !== 'create' && !isApply && known === undefined) return refuse(notFound(resource, name))
  const object = verb === 'patch' && !isApply ? mergePatch(known as Json | undefined, body) : body
  if (!isObject(object)) return refuse(badRequest('the body is no JSON object'))
  const metadata = isObject(object['metadata']) ? object['metadata'] : {}
  const { namespace: own, ...rest } = metadata
  if (own !== undefined && own !== namespace)
    return refuse(
      badRequest(
        `the namespace of the object (${JSON.stringify(own)}) does not match the namespace on the URL (${JSON.stringify(namespace)})`,
      ),
    )
  const placed = { ...object, metadata: { ...rest, ...(resource.namespaced && { namespace }) } }
  const { objects, problems } = parseManifest('body', JSON.stringify(placed))
  const [parsed] = objects
  if (problems.length > 0 || parsed === undefined)
    return refuse(invalid(problems.map((problem) => problem.replace(/^body:\d+: document 1 ?/, '')).join('; ')))
  if (parsed.kind !== resource)
    return refuse(
      badRequest(
        `the object is a ${parsed.kind.kind} of ${apiVersionOf(parsed.kind)}, and not ${apiVersionOf(resource)} ${resource.kind}`,
      ),
    )
  if (parsed.name !== name)
    return refuse(badRequest(`the name of the object (${parsed.name}) does not match the name on the URL (${name})`))
  return { kind: 'taken', object: { ...known, ...parsed.object }, created: known === undefined }
}

const refuse = (failure: Failure): DryRun => ({ kind: 'refused', failure })
