// Requests that a node's kubelet answers: pods/log, pods/exec, pods/attach, pods/portforward and nodes/proxy. Here is what
// becomes of them: which node, which path of its kubelet, or why not.

import { GROUP_MASTERS, type Identity } from '../../lib/identity.ts'
import type { KubernetesObject, Node, Pod } from '../../lib/k8s/objects.ts'
import { KUBELET_PORT } from '../node-dial.ts'
import { builtIn, type Kind } from './kinds.ts'
import { isTrue, type ResourceRequest } from './request.ts'
import * as status from './status.ts'

export type KubeletCall = {
  readonly kind: 'call'
  readonly node: string
  readonly port: number
  /** Path and query at the kubelet. */
  readonly path: string
  /** What it is about, for messages and the log. */
  readonly what: string
  /** An answer that is no success is told as a Status; else as the kubelet gave it. */
  readonly asStatus: boolean
}
export type KubeletPlan = KubeletCall | { readonly kind: 'refused'; readonly failure: status.Failure }
export type Lookup = (kind: Kind, namespace: string, name: string) => KubernetesObject | undefined

const STREAMS: readonly string[] = ['exec', 'attach', 'portforward']
const POD_SUBRESOURCES: readonly string[] = ['log', ...STREAMS]
const LOG_OPTIONS = [
  'follow',
  'previous',
  'sinceSeconds',
  'sinceTime',
  'timestamps',
  'tailLines',
  'limitBytes',
  'stream',
] as const
/** What the API's parameters are called at the kubelet. */
const STREAM_OPTIONS = { stdin: 'input', stdout: 'output', stderr: 'error', tty: 'tty' } as const

export const isForKubelet = ({ resource: { kind, group }, subresource = '' }: ResourceRequest): boolean =>
  group === '' && (kind === 'Pod' ? POD_SUBRESOURCES.includes(subresource) : kind === 'Node' && subresource === 'proxy')

/** Whether it needs a connection of its own, by WebSocket or SPDY. */
export const needsUpgrade = ({ subresource = '' }: ResourceRequest): boolean => STREAMS.includes(subresource)

/** Members of system:masters do all of it, other people read logs, and nodes nothing: one must not look into another. */
export function mayUseKubelet(caller: Identity, { subresource }: ResourceRequest): boolean {
  return caller.kind === 'user' && (subresource === 'log' || caller.groups.includes(GROUP_MASTERS))
}

export function planKubeletCall(asked: ResourceRequest, get: Lookup): KubeletPlan {
  const { resource, namespace, name = '', subresource = '', query } = asked
  const object = get(resource, namespace, name)
  if (object === undefined) return refused(status.notFound(resource, name))
  if (resource.kind === 'Node')
    return {
      kind: 'call',
      ...kubeletOf(object as Node),
      path: asked.tail,
      what: `nodes/${name}/proxy`,
      asStatus: false,
    }
  const pod = object as Pod
  const node = pod.spec?.nodeName ?? ''
  if (node === '') return refused(status.badRequest(`pod ${name} does not have a host assigned`))
  const host = get(builtIn('Node'), '', node)
  if (host === undefined)
    return refused(status.badRequest(`pod ${name} is on node ${node}, and there is no node of this name`))
  const what = `pods/${subresource} ${namespace}/${name}`
  const at = (verb: string, parts: readonly string[], parameters: URLSearchParams): KubeletCall => {
    const path = [verb, namespace, name, ...parts].map(encodeURIComponent).join('/')
    const text = parameters.size === 0 ? '' : `?${parameters.toString()}`
    return { kind: 'call', ...kubeletOf(host as Node), path: `/${path}${text}`, what, asStatus: true }
  }
  if (subresource === 'portforward') return at('portForward', [], only(query, ['ports']))
  const container = containerOf(pod, query.get('container') ?? '')
  if (container.kind === 'refused') return container
  if (subresource === 'log') return at('containerLogs', [container.name], only(query, LOG_OPTIONS))
  const parameters = new URLSearchParams(query.getAll('command').map((word) => ['command', word]))
  for (const [ours, theirs] of Object.entries(STREAM_OPTIONS))
    if (isTrue(query.get(ours))) parameters.append(theirs, '1')
  return at(subresource, [container.name], parameters)
}

export function kubeletOf({ metadata, status: own }: Node): Pick<KubeletCall, 'node' | 'port'> {
  const { daemonEndpoints } = (own ?? {}) as { daemonEndpoints?: { kubeletEndpoint?: { Port?: unknown } } }
  const port = daemonEndpoints?.kubeletEndpoint?.Port
  const isPort = typeof port === 'number' && Number.isInteger(port) && port > 0 && port < 65536
  return { node: metadata?.name ?? '', port: isPort ? port : KUBELET_PORT }
}

/** The only one, or the one that is asked for, in Kubernetes' words. */
function containerOf(
  { metadata, spec }: Pod,
  asked: string,
):
  | { readonly kind: 'container'; readonly name: string }
  | { readonly kind: 'refused'; readonly failure: status.Failure } {
  const names = (spec?.containers ?? []).map(({ name }) => name)
  const others = [...(spec?.initContainers ?? []), ...(spec?.ephemeralContainers ?? [])].map(({ name }) => name)
  const pod = metadata?.name ?? ''
  if (asked !== '')
    return names.includes(asked) || others.includes(asked)
      ? { kind: 'container', name: asked }
      : refused(status.badRequest(`container ${asked} is not valid for pod ${pod}`))
  const [first, ...more] = names
  if (first === undefined) return refused(status.badRequest(`pod ${pod} has no container`))
  if (more.length === 0) return { kind: 'container', name: first }
  return refused(
    status.badRequest(`a container name must be specified for pod ${pod}, choose one of: [${names.join(' ')}]`),
  )
}

function only(query: URLSearchParams, names: readonly string[]): URLSearchParams {
  return new URLSearchParams(names.flatMap((name) => query.getAll(name).map((value) => [name, value])))
}

const refused = (failure: status.Failure) => ({ kind: 'refused', failure }) as const
