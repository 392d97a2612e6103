// The embedded Kubernetes API over a folder of manifests: discovery, get, list, watch, and the few writes that nodes do.
// The relay terminates TLS and says whose certificate it is; here is everything from the request on.

import type { IncomingHttpHeaders, IncomingMessage, ServerResponse } from 'node:http'
import { join } from 'node:path'
import type { Duplex } from 'node:stream'
import { setTimeout as sleep } from 'node:timers/promises'
import type { KubernetesObject, Node, Pod } from '../../lib/k8s/objects.ts'
import type { Log } from '../../lib/log.ts'
import type { RelayStatus } from '../../lib/status.ts'
import { VERSION } from '../../lib/version.ts'
import type { Identity } from '../../lib/identity.ts'
import { forbidden, userOf, type Caller } from './access.ts'
import { fail, send, sendText } from './answer-server.ts'
import { isAllowed } from './authorization.ts'
import { Cluster } from './cluster.ts'
import { discoveryDocuments } from './discovery.ts'
import { checkFolder, followFolder } from './folder-loop.ts'
import { builtIn } from './kinds.ts'
import { KubeletError, refuse, type KubeletClient } from './kubelet-client.ts'
import { isForKubelet, mayUseKubelet, needsUpgrade, planKubeletCall, type KubeletPlan } from './kubelet.ts'
import { createMetricsClient } from './metrics-client.ts'
import { chosen, METRICS_GROUP, metricsList, parseMetricsRequest, type MetricsRequest } from './metrics.ts'
import { SelectorError } from './selectors.ts'
import { nextToken, pageOf, parseListOptions } from './list.ts'
import { chooseRepresentation, listBody, objectBody, type Representation } from './representation.ts'
import { parseRequest, type ResourceRequest } from './request.ts'
import type { ListObjects } from './roles.ts'
import { accountOf, TOKEN_REVIEWS_PATH, type TokenWorld } from './service-accounts.ts'
import { openState } from './state-client.ts'
import * as status from './status.ts'
import { serveWatch } from './watch-server.ts'
import { createWrites } from './write-server.ts'

export type ApiOptions = {
  readonly directory: string
  readonly stateDir: string
  /** The way to kubelets; without it, there is none. */
  readonly kubelets?: KubeletClient
  /** What tokens of ServiceAccounts are signed by, 32 bytes. */
  readonly tokenKey: Uint8Array
  readonly log: Log
}
export type Api = {
  /** Answers any path; the caller is who the connection's certificate proves. Never throws. */
  readonly handle: (request: IncomingMessage, response: ServerResponse, caller: Identity) => void
  /** As handle, for requests to go on in another protocol. */
  readonly handleUpgrade: (request: IncomingMessage, stream: Duplex, head: Buffer, caller: Identity) => void
  /** Follows the folder until the signal aborts. */
  readonly run: (signal: AbortSignal) => Promise<void>
  readonly nodes: () => readonly KubernetesObject[]
  readonly status: () => RelayStatus['manifests']
}

/** A new relay has read its folder in a moment: whoever asks before waits for it, and not for its own next attempt. */
const START_WAIT_MS = 10_000
const WATCHES_MAX = 20_000
/** Of one node or user, who must not take the place of all others. */
const WATCHES_PER_CALLER_MAX = 256
const HEALTH: readonly string[] = ['/healthz', '/livez', '/readyz']

/** @throws UsageError if there is no such folder. */
export function createApi({ directory, stateDir, kubelets, tokenKey: key, log }: ApiOptions): Api {
  checkFolder(directory)
  const documents = discoveryDocuments(VERSION, kubelets !== undefined)
  const metrics = kubelets === undefined ? undefined : createMetricsClient(kubelets)
  const state = openState(join(stateDir, 'kubernetes.db'), directory, Date.now(), log)
  const cluster = new Cluster(state)
  const watching = new Map<ServerResponse, string>()
  const tokens = (): TokenWorld => ({ key, nowMs: Date.now(), lookup: (...of) => cluster.registry.get(...of) })
  const list: ListObjects = (kind) => cluster.registry.list(kind)
  const { write, review } = createWrites({ cluster, tokens, log })
  const firstRead = Promise.withResolvers<void>()
  let folderProblems: readonly string[] = []

  const handle: Api['handle'] = (request, response, identity) => {
    answer(request, response, identity).catch((error: unknown) => {
      log.error({ path: request.url, err: error }, 'request to the Kubernetes API failed')
      if (response.headersSent) response.destroy()
      else
        fail(response, {
          code: 500,
          reason: 'InternalError',
          message: `Internal error occurred: ${(error as Error).message}`,
        })
    })
  }

  const answer = async (request: IncomingMessage, response: ServerResponse, identity: Identity): Promise<void> => {
    const token = identity.kind === 'anonymous' ? bearerToken(request.headers) : undefined
    if (token !== undefined && !(await isLoaded())) return fail(response, status.STARTING)
    const caller: Caller = (token === undefined ? undefined : accountOf(tokens(), token)) ?? identity
    if (caller.kind === 'anonymous') return fail(response, status.UNAUTHORIZED)
    const method = request.method ?? 'GET'
    const measured = metrics === undefined ? undefined : parseMetricsRequest(request.url ?? '/')
    if (measured !== undefined) return getMetrics(method, response, measured, caller)
    const asked = parseRequest(method, request.url ?? '/')
    if (asked.kind === 'nothing') {
      if (request.url?.split('?', 1)[0] !== TOKEN_REVIEWS_PATH) return fail(response, status.noSuchPath)
      return (await isLoaded()) ? review(request, response, caller) : fail(response, status.STARTING)
    }
    if (asked.kind === 'document') {
      if (method !== 'GET' && method !== 'HEAD') return fail(response, status.notServed(`${method} ${asked.path}`))
      if (HEALTH.includes(asked.path))
        return cluster.loaded ? sendText(response, 'ok') : fail(response, status.STARTING)
      const document = documents[asked.path]
      return document === undefined ? fail(response, status.noSuchPath) : send(response, 200, document)
    }
    if (!(await isLoaded())) return fail(response, status.STARTING)
    if (isForKubelet(asked)) {
      const plan = planCall(asked, caller)
      if (plan.kind === 'refused') return fail(response, plan.failure)
      if (needsUpgrade(asked)) return fail(response, status.UPGRADE_REQUIRED)
      return kubelets!.forward(plan, request, response, identity)
    }
    const representation = chooseRepresentation(request.headers.accept, asked.query.get('includeObject'))
    if (representation === undefined) return fail(response, status.notAcceptable(request.headers.accept ?? ''))
    switch (asked.verb) {
      case 'get':
      case 'list':
      case 'watch':
        if (!isAllowed(caller, asked, { name: asked.name ?? '', nodes: [], list }))
          return fail(response, forbidden(caller, asked, asked.name ?? ''))
        if (asked.verb === 'get') return get(response, asked, representation)
        return listOrWatch(response, asked, caller, representation)
      default:
        return write(request, response, asked, caller, representation)
    }
  }

  const handleUpgrade: Api['handleUpgrade'] = (request, stream, head, caller) => {
    stream.on('error', () => {})
    upgrade(request, stream, head, caller).catch((error: unknown) => {
      log.error({ path: request.url, err: error }, 'request to the Kubernetes API failed')
      stream.destroy()
    })
  }

  const upgrade = async (request: IncomingMessage, stream: Duplex, head: Buffer, caller: Identity): Promise<void> => {
    if (caller.kind === 'anonymous') return refuse(stream, status.UNAUTHORIZED)
    const asked = parseRequest(request.method ?? 'GET', request.url ?? '/')
    if (asked.kind !== 'resource' || !isForKubelet(asked)) return refuse(stream, status.noSuchPath)
    // A browser shows its user's certificate to whoever asks: a page of somebody else must not open a shell by it.
    if (!isSameOrigin(request.headers)) return refuse(stream, status.FOREIGN_ORIGIN)
    if (!(await isLoaded())) return refuse(stream, status.STARTING)
    const plan = planCall(asked, caller)
    if (plan.kind === 'refused') return refuse(stream, plan.failure)
    return kubelets!.forwardUpgrade(plan, request, stream, head, caller)
  }

  const getMetrics = async (
    method: string,
    response: ServerResponse,
    asked: MetricsRequest,
    caller: Caller,
  ): Promise<void> => {
    if (method !== 'GET') return fail(response, status.notServed(`${method} of metrics`))
    if (!(await isLoaded())) return fail(response, status.STARTING)
    if (caller.kind !== 'user')
      return fail(response, status.forbiddenTo(userOf(caller), 'get', asked.resource, METRICS_GROUP))
    const { registry } = cluster
    const kind = builtIn(asked.resource === 'nodes' ? 'Node' : 'Pod')
    try {
      const objects = chosen(registry.list(kind), asked)
      if (asked.name !== undefined && objects.length === 0) return fail(response, status.notFound(kind, asked.name))
      const items =
        asked.resource === 'nodes'
          ? await metrics!.ofNodes(objects as readonly Node[])
          : await metrics!.ofPods(objects as readonly Pod[], (...key) => registry.get(...key))
      if (asked.name === undefined) return send(response, 200, metricsList(asked.resource, items))
      const [item] = items
      return item === undefined ? fail(response, status.notFound(kind, asked.name)) : send(response, 200, item)
    } catch (error) {
      if (error instanceof SelectorError) return fail(response, status.badRequest(error.message))
      if (error instanceof KubeletError) return fail(response, error.failure)
      throw error
    }
  }

  const isLoaded = async (): Promise<boolean> => {
    if (!cluster.loaded) await Promise.race([firstRead.promise, sleep(START_WAIT_MS, undefined, { ref: false })])
    return cluster.loaded
  }

  const planCall = (asked: ResourceRequest, caller: Caller): KubeletPlan => {
    if (caller.kind === 'service account' || !mayUseKubelet(caller, asked))
      return { kind: 'refused', failure: forbidden(caller, asked, asked.name ?? '') }
    if (kubelets === undefined) return { kind: 'refused', failure: status.noSuchPath }
    return planKubeletCall(asked, (kind, namespace, name) => cluster.registry.get(kind, namespace, name))
  }

  const get = (response: ServerResponse, asked: ResourceRequest, representation: Representation): void => {
    const { resource, namespace, name = '', subresource } = asked
    if (subresource !== undefined && subresource !== 'status') return fail(response, status.noSuchPath)
    const object = cluster.registry.get(resource, namespace, name)
    if (object === undefined) return fail(response, status.notFound(resource, name))
    send(response, 200, objectBody(object, resource, { representation, nowMs: Date.now() }))
  }

  const listOrWatch = (
    response: ServerResponse,
    asked: ResourceRequest,
    caller: Caller,
    representation: Representation,
  ): void | Promise<void> => {
    const { resource: kind } = asked
    const { registry } = cluster
    const options = parseListOptions(asked, registry.version, Math.random())
    if (options.kind === 'refused') return fail(response, options.failure)
    if (options.kind === 'watch') {
      const user = userOf(caller)
      const own = [...watching.values()].filter((other) => other === user).length
      if (watching.size >= WATCHES_MAX || own >= WATCHES_PER_CALLER_MAX)
        return fail(response, status.tooMany('watches'))
      // Gone while the folder was read; it would never close again.
      if (response.destroyed) return
      watching.set(response, user)
      response.once('close', () => watching.delete(response))
      return serveWatch(registry, response, { kind, representation, ...options.watch })
    }
    // A page of a list that others changed since is made right by a watch from the first page's version.
    if (options.since !== undefined && registry.since(kind, options.since) === undefined)
      return fail(response, status.expired('The provided continue parameter is too old: list again'))
    const resourceVersion = String(options.since ?? registry.version)
    const page = pageOf(registry.list(kind), options)
    const metadata = {
      resourceVersion,
      ...(page.next !== undefined && {
        continue: nextToken(Number(resourceVersion), page.next),
        remainingItemCount: page.remaining,
      }),
    }
    send(response, 200, listBody(page.items, kind, metadata, { representation, nowMs: Date.now() }))
  }

  return {
    handle,
    handleUpgrade,
    run: async (signal) => {
      try {
        await followFolder(
          {
            directory,
            log,
            onContents: ({ files, unread, problems }) => {
              const before = new Set([...folderProblems, ...cluster.problems])
              folderProblems = problems
              cluster.setFiles(files, unread, Date.now())
              firstRead.resolve()
              for (const problem of [...problems, ...cluster.problems])
                if (!before.has(problem)) log.warn({ problem }, 'manifest problem')
              log.info({ path: directory, objects: cluster.size }, 'manifests read')
            },
          },
          signal,
        )
      } finally {
        for (const response of watching.keys()) response.end()
        state.close()
      }
    },
    nodes: () => cluster.registry.list(builtIn('Node')),
    status: () => {
      const disk = state.error()
      const problems = [...folderProblems, ...cluster.problems, ...(disk === undefined ? [] : [disk])]
      return { directory, objects: cluster.size, problems }
    },
  }
}

/** kubectl says no origin; a browser says that of its page. */
function isSameOrigin({ origin, host }: IncomingHttpHeaders): boolean {
  return origin === undefined || URL.parse(origin)?.origin === URL.parse(`https://${host}`)?.origin
}

/** RFC 6750 §2.1. */
const bearerToken = ({ authorization = '' }: IncomingHttpHeaders): string | undefined =>
  /^Bearer +(\S+)$/i.exec(authorization)?.[1]
