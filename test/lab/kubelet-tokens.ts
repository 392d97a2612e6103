// The tokens of a node's pods, as its kubelet asks the Kubernetes API for them (TokenRequest). One argument: JSON of where it
// keeps who it is, and of TokenWish[]. Prints JSON of Token[], in their order.

import { setTimeout as sleep } from 'node:timers/promises'
import { createApiClient, type ApiClient } from '../../lib/k8s/api-client.ts'
import { isNotFound } from '../../lib/k8s/api-error.ts'
import type { KubernetesObject } from '../../lib/k8s/objects.ts'
import { loadIdentity } from '../../lib/net/identity.ts'
import type { Token, TokenWish } from './volumes.ts'

type TokenRequest = KubernetesObject & { readonly spec?: object; readonly status?: Token }
const SERVED_WITHIN_MS = 20_000
const RETRY_MS = 100

async function request(client: ApiClient, wish: TokenWish): Promise<Token> {
  const { namespace, account, pod, audience, expirationSeconds } = wish
  // A subresource, which is created as if it were an object.
  const resource = { group: '', version: 'v1', plural: `serviceaccounts/${account}/token`, kind: '', namespaced: true }
  const asked: TokenRequest = {
    ...{ apiVersion: 'authentication.k8s.io/v1', kind: 'TokenRequest', metadata: { namespace } },
    spec: {
      audiences: audience === undefined ? [] : [audience],
      expirationSeconds,
      boundObjectRef: { apiVersion: 'v1', kind: 'Pod', name: pod },
    },
  }
  for (const deadline = Date.now() + SERVED_WITHIN_MS; ; await sleep(RETRY_MS)) {
    try {
      const { status } = await client.create<TokenRequest>(resource, asked)
      if (status === undefined) throw new Error('the answer has no status')
      return status
    } catch (error) {
      // The API may not have read the pod's file yet.
      if (!isNotFound(error) || Date.now() > deadline) throw error
    }
  }
}

const { stateDir, wishes } = JSON.parse(process.argv[2] ?? '') as {
  readonly stateDir: string
  readonly wishes: readonly TokenWish[]
}
const { server, caPem, certificatePem, keyPem } = await loadIdentity(stateDir)
const client = createApiClient({ server, ca: caPem, cert: certificatePem, key: keyPem })
const tokens = await Promise.all(wishes.map((wish) => request(client, wish)))
client.close()
process.stdout.write(JSON.stringify(tokens))
