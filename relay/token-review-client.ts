// Asks the Kubernetes API whose a ServiceAccount token is, and on which node its pod runs (token-review.ts).

import { isNotFound } from '../lib/k8s/api-error.ts'
import type { ApiClient } from '../lib/k8s/api-client.ts'
import { PODS, type Pod } from '../lib/k8s/objects.ts'
import type { Log } from '../lib/log.ts'
import { AUDIENCE, nodeOfPod, readReview, TOKEN_REVIEWS, type Bound, type PodRef } from './token-review.ts'

/** Never throws: an API that is away is a refusal that may be tried again. */
export type ReviewToken = (token: string) => Promise<Bound>

const TIMEOUT_MS = 8_000

export function createTokenReviewer(options: {
  readonly client: Pick<ApiClient, 'create' | 'get'>
  /** That may join, `NAMESPACE/NAME`. */
  readonly accounts: readonly string[]
  readonly log: Log
}): ReviewToken {
  const { client, accounts, log } = options
  const podOf = async ({ namespace, name }: PodRef): Promise<Pod | undefined> => {
    try {
      return await client.get(PODS, { namespace, name }, AbortSignal.timeout(TIMEOUT_MS))
    } catch (error) {
      if (isNotFound(error)) return undefined
      throw error
    }
  }
  const review = async (token: string): Promise<Bound> => {
    const asked = { spec: { token, audiences: [AUDIENCE] } }
    const reviewed = readReview(await client.create(TOKEN_REVIEWS, asked, AbortSignal.timeout(TIMEOUT_MS)), accounts)
    if (reviewed.kind !== 'pod') return reviewed
    return nodeOfPod(reviewed.account, reviewed.pod, await podOf(reviewed.pod))
  }
  return async (token) => {
    try {
      return await review(token)
    } catch (err) {
      log.warn({ err }, 'the Kubernetes API did not review a token')
      return {
        kind: 'refused',
        status: 503,
        code: 'FULMAR_REVIEW_UNAVAILABLE',
        message: 'the relay cannot ask the Kubernetes API about the token now, its log says why; try again in a moment',
      }
    }
  }
}
