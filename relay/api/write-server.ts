// What is asked of the embedded API by a body: the few writes that there are, dry runs of all others, the tokens of pods and
// whose they are.

import type { IncomingMessage, ServerResponse } from 'node:http'
import { GROUP_MASTERS } from '../../lib/identity.ts'
import type { KubernetesObject } from '../../lib/k8s/objects.ts'
import type { Log } from '../../lib/log.ts'
import { createBucket } from '../token-bucket.ts'
import { forbidden, mayAccess, ownsLease, userOf, type Caller } from './access.ts'
import { fail, readJson, send } from './answer-server.ts'
import { WRITTEN_MAX_BYTES, type Cluster } from './cluster.ts'
import { planDryRun } from './dry-run.ts'
import { builtIn } from './kinds.ts'
import type { Json } from './patch.ts'
import { objectBody, type Representation } from './representation.ts'
import type { ResourceRequest } from './request.ts'
import { mayByRoles } from './roles.ts'
import { answerTokenRequest, answerTokenReview, AUTHENTICATION_GROUP, type TokenWorld } from './service-accounts.ts'
import * as status from './status.ts'
import { planWrite } from './write.ts'

export type WriteOptions = {
  readonly cluster: Cluster
  readonly tokens: () => TokenWorld
  readonly log: Log
}
export type Writes = {
  /** @param asked no get, list or watch. */
  readonly write: (
    request: IncomingMessage,
    response: ServerResponse,
    asked: ResourceRequest,
    caller: Caller,
    representation: Representation,
  ) => Promise<void>
  readonly review: (request: IncomingMessage, response: ServerResponse, caller: Caller) => Promise<void>
}

/** A node has one of its own, and those of its daemons. */
const LEASES_PER_NODE_MAX = 64
/** Refused writes of nodes that are logged as such; a node that does nothing else fills no disk. */
const TOLD = { perSecond: 1, burst: 32 }

export function createWrites({ cluster, tokens, log }: WriteOptions): Writes {
  const mayTell = createBucket(TOLD, performance.now())

  const write: Writes['write'] = async (request, response, asked, caller, representation) => {
    const { resource, namespace, verb } = asked
    // A create names its object in the body alone, so that the body is read before it is known whether it may.
    const body = await readJson(request)
    if (body.kind === 'refused') return fail(response, body.failure)
    const name = asked.name ?? (verb === 'create' ? nameIn(body.value) : '')
    const nodes = cluster.registry.list(builtIn('Node')).map(({ metadata }) => metadata?.name ?? '')
    if (!isAllowed(cluster, caller, asked, name, nodes)) {
      const failure = forbidden(caller, asked, name)
      if (caller.kind === 'node')
        log[mayTell.take(performance.now()) ? 'warn' : 'debug'](
          { node: caller.node, reason: failure.message },
          'write refused',
        )
      return fail(response, failure)
    }
    if (resource.kind === 'ServiceAccount' && asked.subresource === 'token' && verb === 'create') {
      const answer = answerTokenRequest(tokens(), caller, { namespace, name }, body.value)
      return answer.kind === 'issued' ? send(response, 201, answer.object) : fail(response, answer.failure)
    }
    const nowMs = Date.now()
    const contentType = (request.headers['content-type'] ?? '').split(';')[0]!.trim()
    const known = cluster.registry.get(resource, namespace, name)
    if (asked.query.has('dryRun')) {
      const hasNamespace = cluster.registry.get(builtIn('Namespace'), '', namespace) !== undefined
      const plan = planDryRun(asked, { name, known, hasNamespace, body: body.value, contentType })
      if (plan.kind === 'refused') return fail(response, plan.failure)
      return send(response, plan.created ? 201 : 200, objectBody(plan.object, resource, { representation, nowMs }))
    }
    if (verb === 'create' && caller.kind === 'node') {
      const isOwn = ({ metadata }: KubernetesObject) => ownsLease(caller.node, metadata?.name ?? '', nodes)
      const own = cluster.registry.list(resource).filter(isOwn).length
      if (own >= LEASES_PER_NODE_MAX) return fail(response, status.tooMany(resource.plural))
    }
    const plan = planWrite(asked, name, known, body.value, contentType)
    if (plan.kind === 'refused') return fail(response, plan.failure)
    const object =
      plan.kind === 'status'
        ? cluster.patchStatus(resource, namespace, name, plan.patch, nowMs)
        : cluster.put(resource, namespace, name, plan.object, nowMs)
    if (object === 'too many') return fail(response, status.tooMany(resource.plural))
    if (object === 'too large') return fail(response, status.tooLarge('the object', WRITTEN_MAX_BYTES))
    const code = plan.kind === 'object' && plan.created ? 201 : 200
    send(response, code, objectBody(object, resource, { representation, nowMs }))
  }

  const review: Writes['review'] = async (request, response, caller) => {
    if (request.method !== 'POST') return fail(response, status.notServed(`${request.method} of tokenreviews`))
    if (!mayReview(cluster, caller)) return fail(response, status.forbiddenReviews(userOf(caller)))
    const body = await readJson(request)
    if (body.kind === 'refused') return fail(response, body.failure)
    const answer = answerTokenReview(tokens(), body.value)
    return answer === undefined
      ? fail(response, status.badRequest('the body is no TokenReview'))
      : send(response, 201, answer)
  }
  return { write, review }
}

/** @param name of the object; that of the body for a create. */
export function isAllowed(
  { registry }: Pick<Cluster, 'registry'>,
  caller: Caller,
  asked: ResourceRequest,
  name: string,
  nodes: Iterable<string>,
): boolean {
  if (caller.kind !== 'service account') return mayAccess(caller, asked, name, nodes)
  const { resource, subresource, verb, namespace } = asked
  const path = subresource === undefined ? resource.plural : `${resource.plural}/${subresource}`
  const deed = { verb, group: resource.group, resource: path, namespace, name }
  return mayByRoles(caller, deed, (kind) => registry.list(kind))
}

/** People with all rights, and whom a role lets. */
function mayReview({ registry }: Cluster, caller: Caller): boolean {
  if (caller.kind === 'user') return caller.groups.includes(GROUP_MASTERS)
  const deed = { verb: 'create', group: AUTHENTICATION_GROUP, resource: 'tokenreviews', namespace: '', name: '' }
  return caller.kind === 'service account' && mayByRoles(caller, deed, (kind) => registry.list(kind))
}

function nameIn(body: Json): string {
  const name = (body as KubernetesObject | null)?.metadata?.name
  return typeof name === 'string' ? name : ''
}
