// Requests and answers of the embedded API in JSON, and failures as Kubernetes' Status.

import type { IncomingMessage, ServerResponse } from 'node:http'
import { readBody } from '../request-body.ts'
import type { Json } from './patch.ts'
import * as status from './status.ts'

/** Kubernetes' own bound of a request. */
const BODY_MAX_BYTES = 3 << 20

const PROTOBUF = 'application/vnd.kubernetes.protobuf'

export type Body =
  | { readonly kind: 'json'; readonly value: Json }
  | { readonly kind: 'refused'; readonly failure: status.Failure }

export async function readJson(request: IncomingMessage): Promise<Body> {
  const type = request.headers['content-type'] ?? ''
  if (type.startsWith(PROTOBUF)) return { kind: 'refused', failure: status.onlyJson(type) }
  try {
    const body = await readBody(request, BODY_MAX_BYTES)
    if (body === undefined) return { kind: 'refused', failure: status.tooLarge('the body', BODY_MAX_BYTES) }
    return { kind: 'json', value: JSON.parse(body.toString() || '{}') as Json }
  } catch (error) {
    return { kind: 'refused', failure: status.badRequest(`the body is not JSON: ${(error as Error).message}`) }
  }
}

export function send(response: ServerResponse, code: number, body: object): void {
  const payload = Buffer.from(JSON.stringify(body))
  const headers = {
    'content-type': 'application/json',
    'content-length': payload.length,
    'cache-control': 'no-cache, private',
  }
  response.writeHead(code, headers).end(payload)
}

export function sendText(response: ServerResponse, body: string): void {
  response.writeHead(200, { 'content-type': 'text/plain; charset=utf-8' }).end(body)
}

export function fail(response: ServerResponse, failure: status.Failure): void {
  if (failure.retryAfterSeconds !== undefined) response.setHeader('retry-after', failure.retryAfterSeconds)
  // The rest of a body that was too large is not waited for.
  if (failure.code === 413) response.setHeader('connection', 'close')
  send(response, failure.code, status.statusObject(failure))
}
