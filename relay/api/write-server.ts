// What is asked of the embedded API by a body: the few writes that there are, dry runs of all others, the tokens of pods and
// whose they are.

import type { IncomingMessage, ServerResponse } from 'node:http'
import type { KubernetesObject } from '../../lib/k8s/objects.ts'
import type { Log } from '../../lib/log.ts'
import { createBucket } from '../token-bucket.ts'
import { forbidden, ownsLease, userOf, type Caller } from './access.ts'
import { fail, readJson, send } from './answer-server.ts'
import { isAllowed, mayReview } from './authorization.ts'
import { WRITTEN_MAX_BYTES, type Cluster } from './cluster.ts'
import { planDryRun } from './dry-run.ts'
import { builtIn } from './kinds.ts'
import type { Json } from './patch.ts'
import { objectBody, type Representation } from './representation.ts'
import type { ResourceRequest } from './request.ts'
import type { ListObjects } from './roles.ts'
import {
  answerTokenRequest,
  answerTokenReview,
  AUTHENTICATION_GROUP,
  TOKEN_REVIEWS,
  type TokenWorld,
} from './service-accounts.ts'
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
  const list: ListObjects = (kind) => cluster.registry.list(kind)

  const write: Writes['write'] = async (request, response, asked, caller, representation) => {
    const { resource, namespace, verb } = asked
    // A create names its object in the body alone, so that the body is read before it is known whether it may.
    const body = await readJson(request)
    if (body.kind === 'refused') return fail(response, body.failure)
    const name = asked.name ?? (verb === 'create' ? nameIn(body.value) : '')
    const nodes = list(builtIn('Node')).map(({ metadata }) => metadata?.name ?? '')
    if (!isAllowed(caller, asked, { name, nodes, list })) {
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
      const own = list(resource).filter(isOwn).length
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
    if (!mayReview(caller, list))
      return fail(response, status.forbiddenTo(userOf(caller), 'create', TOKEN_REVIEWS, AUTHENTICATION_GROUP))
    const body = await readJson(request)
    if (body.kind === 'refused') return fail(response, body.failure)
    const answer = answerTokenReview(tokens(), body.value)
    return answer === undefined
      ? fail(response, status.badRequest('the body is no TokenReview'))
      : send(response, 201, answer)
  }
  return { write, review }
}

function nameIn(body: Json): string {
  const name = (body as KubernetesObject | null)?.metadata?.name
  return typeof name === 'string' ? name : ''
}
