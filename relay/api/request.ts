// What a request asks for: a URL and a method become a verb on a resource, as Kubernetes reads them.
//   /api/v1[/namespaces/NS]/PLURAL[/NAME[/SUBRESOURCE]]     the core group
//   /apis/GROUP/VERSION[/namespaces/NS]/PLURAL[/NAME[/…]]   any other
//   /api/v1/nodes/NAME/proxy[/…]                             what the node's kubelet serves

import { kindOf, type Kind } from './kinds.ts'

export type Verb = 'get' | 'list' | 'watch' | 'create' | 'update' | 'patch' | 'delete' | 'deletecollection'
export type ResourceRequest = {
  readonly kind: 'resource'
  readonly verb: Verb
  readonly resource: Kind
  /** `''` for all, and for cluster-scoped resources. */
  readonly namespace: string
  readonly name: string | undefined
  readonly subresource: string | undefined
  /** What follows `proxy`, path and query as they came; else `/`. */
  readonly tail: string
  readonly query: URLSearchParams
}
export type ApiRequest =
  | ResourceRequest
  /** Version, health, discovery: read only. */
  | { readonly kind: 'document'; readonly path: string }
  | { readonly kind: 'nothing' }

const TARGET_MAX = 8_192

/** @param target the request target, path and query. */
export function parseRequest(method: string, target: string): ApiRequest {
  const url = target.length > TARGET_MAX || !target.startsWith('/') ? null : URL.parse(`http://relay${target}`)
  if (url === null) return { kind: 'nothing' }
  const parts = segments(url.pathname)
  if (parts === undefined) return { kind: 'nothing' }
  const proxied = /^\/+api\/+v1\/+nodes\/+[^/]+\/+proxy(?=\/|$)/.exec(url.pathname)?.[0]
  if (proxied !== undefined) parts.length = 5
  const isCore = parts[0] === 'api'
  const depth = isCore ? 2 : 3
  if ((!isCore && parts[0] !== 'apis') || parts.length <= depth)
    return { kind: 'document', path: `/${parts.join('/')}` }
  const [group, version] = isCore ? ['', parts[1]!] : [parts[1]!, parts[2]!]
  const place = placeOf(group, version, parts.slice(depth))
  if (place === undefined) return { kind: 'nothing' }
  const verb = verbOf(method, place.name !== undefined, url.searchParams)
  const tail = proxied === undefined ? '/' : (url.pathname.slice(proxied.length) || '/') + url.search
  return verb === undefined ? { kind: 'nothing' } : { kind: 'resource', verb, ...place, tail, query: url.searchParams }
}

/** Whether a client may ask there to go on in another protocol than HTTP. */
export const mayUpgrade = (path: string): boolean =>
  /^\/api\/v1\/(namespaces\/[^/]+\/pods\/[^/]+\/(exec|attach|portforward)|nodes\/[^/]+\/proxy(\/.*)?)$/.test(path)

type Place = Pick<ResourceRequest, 'resource' | 'namespace' | 'name' | 'subresource'>

function placeOf(group: string, version: string, parts: readonly string[]): Place | undefined {
  const [first, namespace = '', plural = ''] = parts
  // `namespaces/x/pods` are pods, `namespaces/x/status` is the status of a namespace.
  const inner = first === 'namespaces' && parts.length > 2 ? kindOf(group, version, plural) : undefined
  const [resource, scope, rest] =
    inner?.namespaced === true
      ? [inner, namespace, parts.slice(3)]
      : [kindOf(group, version, first!), '', parts.slice(1)]
  const [name, subresource] = rest
  if (resource === undefined || rest.length > 2) return undefined
  // Objects of a namespaced resource have no name without their namespace.
  if (name !== undefined && resource.namespaced && scope === '') return undefined
  return { resource, namespace: scope, name, subresource }
}

function verbOf(method: string, named: boolean, query: URLSearchParams): Verb | undefined {
  switch (method) {
    case 'GET':
    case 'HEAD':
      return isTrue(query.get('watch')) ? 'watch' : named ? 'get' : 'list'
    case 'POST':
      return 'create'
    case 'PUT':
      return 'update'
    case 'PATCH':
      return 'patch'
    case 'DELETE':
      return named ? 'delete' : 'deletecollection'
    default:
      return undefined
  }
}

/** As Go's strconv.ParseBool reads it. */
export const isTrue = (text: string | null): boolean =>
  text !== null && ['1', 't', 'true', 'True', 'TRUE', 'T'].includes(text)

function segments(pathname: string): string[] | undefined {
  try {
    return pathname
      .split('/')
      .filter((part) => part !== '')
      .map(decodeURIComponent)
  } catch {
    return undefined
  }
}
