// Kubernetes' Status objects (meta/v1): every answer that is no success, in the words that kubectl and clients know.

import { resourceNameOf, type Kind } from './kinds.ts'

export type Failure = {
  readonly code: number
  readonly reason: string
  readonly message: string
  readonly details?: Readonly<Record<string, unknown>>
  readonly retryAfterSeconds?: number
}

export const statusObject = ({ code, reason, message, details = {}, retryAfterSeconds }: Failure) => ({
  kind: 'Status',
  apiVersion: 'v1',
  metadata: {},
  status: 'Failure',
  message,
  reason,
  details: { ...details, ...(retryAfterSeconds !== undefined && { retryAfterSeconds }) },
  code,
})

export const UNAUTHORIZED: Failure = {
  code: 401,
  reason: 'Unauthorized',
  message: 'Unauthorized: present a client certificate that this relay issued (fulmar join, or fulmar kubeconfig)',
}
export const UPGRADE_REQUIRED: Failure = {
  code: 400,
  reason: 'BadRequest',
  message: 'Upgrade request required: ask by WebSocket or SPDY, as kubectl does',
}
export const FOREIGN_ORIGIN: Failure = {
  code: 403,
  reason: 'Forbidden',
  message: 'a page of another origin may not ask for this',
}
export const STARTING: Failure = {
  code: 503,
  reason: 'ServiceUnavailable',
  message: 'the manifest folder is being read; try again',
  retryAfterSeconds: 1,
}
export const tooMany = (what: string): Failure => ({
  code: 429,
  reason: 'TooManyRequests',
  message: `too many ${what}; try again later or ask another replica`,
  retryAfterSeconds: 5,
})

export const badRequest = (message: string): Failure => ({ code: 400, reason: 'BadRequest', message })
export const invalid = (message: string): Failure => ({ code: 422, reason: 'Invalid', message })
export const tooLarge = (what: string, bytes: number): Failure => ({
  code: 413,
  reason: 'RequestEntityTooLarge',
  message: `${what} has more than ${bytes} bytes`,
})
export const unsupportedMediaType = (type: string): Failure => ({
  code: 415,
  reason: 'UnsupportedMediaType',
  message: `the body of type ${JSON.stringify(type)} is not supported; send application/merge-patch+json or application/strategic-merge-patch+json`,
})
export const onlyJson = (type: string): Failure => ({
  code: 415,
  reason: 'UnsupportedMediaType',
  message: `a body of type ${JSON.stringify(type)} is not read here; send application/json`,
})
export const notAcceptable = (accept: string): Failure => ({
  code: 406,
  reason: 'NotAcceptable',
  message: `only application/json is served, not ${JSON.stringify(accept.slice(0, 100))}`,
})
/** Of what is no object of a kind. */
export const forbiddenTo = (user: string, verb: string, resource: string, group: string): Failure => ({
  code: 403,
  reason: 'Forbidden',
  message: `User ${JSON.stringify(user)} cannot ${verb} resource ${JSON.stringify(resource)} in API group ${JSON.stringify(group)}`,
})
export const noSuchPath: Failure = {
  code: 404,
  reason: 'NotFound',
  message: 'the server could not find the requested resource',
}

export const notFound = (kind: Kind, name: string): Failure => ({
  code: 404,
  reason: 'NotFound',
  message: `${resourceNameOf(kind)} ${JSON.stringify(name)} not found`,
  details: { name, group: kind.group, kind: kind.plural },
})
export const alreadyExists = (kind: Kind, name: string): Failure => ({
  code: 409,
  reason: 'AlreadyExists',
  message: `${resourceNameOf(kind)} ${JSON.stringify(name)} already exists`,
  details: { name, group: kind.group, kind: kind.plural },
})
export const conflict = (kind: Kind, name: string): Failure => ({
  code: 409,
  reason: 'Conflict',
  message:
    `Operation cannot be fulfilled on ${resourceNameOf(kind)} ${JSON.stringify(name)}: ` +
    'the object has been modified; please apply your changes to the latest version and try again',
  details: { name, group: kind.group, kind: kind.plural },
})
export const expired = (message: string): Failure => ({ code: 410, reason: 'Expired', message })
export const notServed = (what: string): Failure => ({
  code: 405,
  reason: 'MethodNotAllowed',
  message: `${what} is not supported here: objects come from the relay's manifest folder; edit its files`,
})
