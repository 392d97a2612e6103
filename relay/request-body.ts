// The body of a request, whole or not at all. One that comes too slowly is ended by the server's requestTimeout.

import type { IncomingMessage } from 'node:http'

/** @returns undefined if it is longer than it may be. @throws Error where the client goes away before its end. */
export async function readBody(request: IncomingMessage, maxBytes: number): Promise<Buffer | undefined> {
  const chunks: Buffer[] = []
  let bytes = 0
  // Left early, the request has to stay open for its answer.
  for await (const chunk of request.iterator({ destroyOnReturn: false }) as AsyncIterable<Buffer>) {
    bytes += chunk.length
    if (bytes > maxBytes) return undefined
    chunks.push(chunk)
  }
  return Buffer.concat(chunks)
}
