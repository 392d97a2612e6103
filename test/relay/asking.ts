// An HTTPS request to a relay on loopback.

import { request, type Agent } from 'node:https'
import type { KeyPair } from '../../lib/certificates.ts'

export type Asked = {
  readonly port: number
  readonly path: string
  readonly caPem: string
  readonly client?: KeyPair | undefined
  readonly method?: string
  readonly body?: string
  readonly type?: string
  /** None unless one is given. */
  readonly agent?: Agent
}

export function ask(asked: Asked): Promise<{ readonly status: number; readonly text: string }> {
  const { port, path, caPem, client, method = 'GET', body = '', type, agent = false } = asked
  const options = {
    ...{ host: '127.0.0.1', port, path, method, ca: caPem, agent },
    ...(client && { cert: client.certificatePem, key: client.keyPem }),
    headers: { ...(type !== undefined && { 'content-type': type }), 'content-length': Buffer.byteLength(body) },
  }
  return new Promise((resolve, reject) => {
    request(options, (response) => {
      let text = ''
      response.setEncoding('utf8')
      response.on('data', (chunk: string) => (text += chunk))
      response.on('end', () => resolve({ status: response.statusCode!, text }))
    })
      .on('error', reject)
      .end(body)
  })
}
