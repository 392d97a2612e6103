// How a daemon reaches the Kubernetes API: as the node that it is, by the mesh's own certificates, or as a pod of a
// cluster, by a token and a CA from files.

import { readFileSync } from 'node:fs'
import type { Clock } from '../clock.ts'
import type { ApiClientOptions } from '../k8s/api-client.ts'
import type { NodeIdentity } from './identity.ts'
import { UsageError } from './lifetime.ts'
import { connectTls } from './relay-tls.ts'

export type ApiAccess = {
  /** A file with a bearer token; it may be replaced at any time, as projected tokens are. */
  readonly serverToken: string | undefined
  /** A file with the CA (PEM) of the API's certificate. */
  readonly serverCa: string | undefined
}

/**
 * @param identity may change its fields at any time: what is asked next is asked with the new certificate.
 * @throws UsageError where the CA cannot be read; a token that cannot be read fails each request, until it can.
 */
export function apiClientOptions(
  server: string,
  identity: Pick<NodeIdentity, 'certificatePem' | 'keyPem' | 'caPem'> & { readonly clock?: Clock },
  { serverToken, serverCa }: ApiAccess,
): ApiClientOptions {
  const ca = serverCa === undefined ? identity.caPem : readCa(serverCa)
  // A certificate of the mesh says nothing to an API that has a CA of its own.
  if (serverToken === undefined)
    return {
      server,
      ca,
      get cert() {
        return identity.certificatePem
      },
      get key() {
        return identity.keyPem
      },
      connect: (to) => (identity.clock?.isBehind() === true ? connectTls(to, identity.clock) : undefined),
    }
  return { server, ca, token: () => readFileSync(serverToken, 'utf8') }
}

function readCa(file: string): string {
  try {
    return readFileSync(file, 'utf8')
  } catch (cause) {
    throw new UsageError(`--server-ca ${file}: ${(cause as Error).message}; name a file of CA certificates (PEM)`, {
      cause,
    })
  }
}
