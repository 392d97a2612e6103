// What a TokenReview says of a projected ServiceAccount token: whether it is for us, of an account that may join, and on
// which node its pod runs. The API server has verified the token; who it is bound to it says in `extra`. Pure.

import type { KubernetesObject, Pod, Resource } from '../lib/k8s/objects.ts'
import { isNodeName, type JoinRefusalCode } from '../lib/wire/join.ts'
import type { Refusal } from './renewal.ts'

/** Of tokens that may be traded for a certificate; those for the Kubernetes API itself may not. */
export const AUDIENCE = 'fulmar'

export type TokenReview = KubernetesObject & {
  readonly spec?: { readonly token: string; readonly audiences: readonly string[] }
  readonly status?: {
    readonly authenticated?: boolean
    readonly audiences?: readonly string[]
    readonly error?: string
    readonly user?: {
      readonly username?: string
      readonly extra?: Readonly<Record<string, readonly string[] | undefined>>
    }
  }
}

export const TOKEN_REVIEWS: Resource<TokenReview> = {
  group: 'authentication.k8s.io',
  version: 'v1',
  plural: 'tokenreviews',
  kind: 'TokenReview',
  namespaced: false,
}

export type PodRef = { readonly namespace: string; readonly name: string; readonly uid: string }
/** What a review comes to. */
export type Bound = { readonly kind: 'node'; readonly node: string } | ({ readonly kind: 'refused' } & Refusal)
export type Reviewed =
  | Bound
  /** The token names its pod alone, as those of Kubernetes before 1.30 do: the pod's object says on which node it is. */
  | { readonly kind: 'pod'; readonly account: string; readonly pod: PodRef }

const USER_PREFIX = 'system:serviceaccount:'
const EXTRA = 'authentication.kubernetes.io/'

/** @param accounts that may join, `NAMESPACE/NAME`. */
export function readReview({ status }: TokenReview, accounts: readonly string[]): Reviewed {
  if (status?.authenticated !== true)
    return refused(
      'FULMAR_SERVICE_ACCOUNT_REFUSED',
      `the Kubernetes API does not accept the token${status?.error ? `: ${status.error}` : ''}; it must be a projected one for the audience ${AUDIENCE}`,
    )
  if (status.audiences?.includes(AUDIENCE) !== true)
    return refused('FULMAR_SERVICE_ACCOUNT_REFUSED', `the token is not for the audience ${AUDIENCE}`)
  const { username = '', extra = {} } = status.user ?? {}
  const [namespace, name, ...rest] = username.startsWith(USER_PREFIX)
    ? username.slice(USER_PREFIX.length).split(':')
    : []
  const account = `${namespace}/${name}`
  if (name === undefined || rest.length > 0 || !accounts.includes(account))
    return refused(
      'FULMAR_SERVICE_ACCOUNT_REFUSED',
      `the token is of ${username === '' ? 'nobody' : username}, which is none of --service-accounts`,
    )
  const [node, podName, podUid] = ['node-name', 'pod-name', 'pod-uid'].map((key) => {
    const values = extra[EXTRA + key]
    return values?.length === 1 ? values[0] : undefined
  })
  if (node !== undefined && isNodeName(node)) return { kind: 'node', node }
  if (podName === undefined || podUid === undefined)
    return refused(
      'FULMAR_SERVICE_ACCOUNT_REFUSED',
      `the token of ${account} is bound to no pod; it must be a projected one, mounted in a pod on the node`,
    )
  return { kind: 'pod', account, pod: { namespace: namespace!, name: podName, uid: podUid } }
}

/** @param found the pod of that name, if there is one now. */
export function nodeOfPod(account: string, { namespace, name, uid }: PodRef, found: Pod | undefined): Bound {
  const { nodeName, serviceAccountName } = found?.spec ?? {}
  if (found?.metadata?.uid !== uid)
    return refused('FULMAR_SERVICE_ACCOUNT_REFUSED', `the pod ${namespace}/${name} that the token is bound to is gone`)
  if (nodeName === undefined || nodeName === '' || `${namespace}/${serviceAccountName}` !== account)
    return refused('FULMAR_SERVICE_ACCOUNT_REFUSED', `the pod ${namespace}/${name} is on no node, or not of ${account}`)
  return { kind: 'node', node: nodeName }
}

const refused = (code: JoinRefusalCode, message: string): Bound => ({ kind: 'refused', status: 403, code, message })
