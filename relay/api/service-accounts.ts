// ServiceAccounts at the embedded API: a TokenRequest gives a kubelet the token of a pod on its node, a TokenReview says
// whose a token is, and the API itself takes those for its own audience. A token counts for as long as what it is bound to
// is there. Pure.

import type { KubernetesObject, Pod } from '../../lib/k8s/objects.ts'
import type { TokenReview } from '../token-review.ts'
import { userOf, type Caller, type ServiceAccount } from './access.ts'
import { builtIn, type Kind } from './kinds.ts'
import { isObject, type Json } from './patch.ts'
import { formatToken, parseToken, TOKEN_MAX_BYTES, type TokenClaims } from './service-account-token.ts'
import { badRequest, conflict, invalid, notFound, type Failure } from './status.ts'

export type Lookup = (kind: Kind, namespace: string, name: string) => KubernetesObject | undefined
export type TokenWorld = { readonly key: Uint8Array; readonly lookup: Lookup; readonly nowMs: number }

export const AUTHENTICATION_GROUP = 'authentication.k8s.io'
export const AUTHENTICATION_VERSION = `${AUTHENTICATION_GROUP}/v1`
export const TOKEN_REVIEWS = 'tokenreviews'
export const TOKEN_REVIEWS_PATH = `/apis/${AUTHENTICATION_VERSION}/${TOKEN_REVIEWS}`

/** Of tokens for this API; as kubeadm has it. */
const OWN_AUDIENCE = 'https://kubernetes.default.svc.cluster.local'
const EXTRA = 'authentication.kubernetes.io/'
const LIFE_S = { fallback: 3_600, min: 600, max: 2 ** 32 }
const AUDIENCES_MAX = 16

type Taken =
  | { readonly kind: 'taken'; readonly account: ServiceAccount; readonly claims: TokenClaims }
  | { readonly kind: 'refused'; readonly reason: string }
type Issued =
  | { readonly kind: 'issued'; readonly object: object }
  | { readonly kind: 'refused'; readonly failure: Failure }

/**
 * A POST to `serviceaccounts/NAME/token`, of somebody who may ask for this account's tokens.
 * @param caller a node gets those of pods on itself, as kubelets do.
 */
export function answerTokenRequest(
  { key, lookup, nowMs }: TokenWorld,
  caller: Caller,
  { namespace, name }: { readonly namespace: string; readonly name: string },
  body: Json,
): Issued {
  const kind = builtIn('ServiceAccount')
  const uid = lookup(kind, namespace, name)?.metadata?.uid
  if (uid === undefined) return refuse(notFound(kind, name))
  const spec = isObject(body) ? (body['spec'] ?? {}) : undefined
  if (!isObject(spec)) return refuse(badRequest('the body is no TokenRequest'))
  const { audiences = [], expirationSeconds, boundObjectRef } = spec
  const wanted = textsIn(audiences)
  if (wanted === undefined || wanted.length > AUDIENCES_MAX)
    return refuse(invalid(`spec.audiences is no list of up to ${AUDIENCES_MAX} texts`))
  const lifeS = expirationSeconds ?? LIFE_S.fallback
  if (typeof lifeS !== 'number' || !Number.isInteger(lifeS) || lifeS < LIFE_S.min || lifeS > LIFE_S.max)
    return refuse(invalid(`spec.expirationSeconds is no whole number from ${LIFE_S.min} to ${LIFE_S.max}`))
  const bound = boundPod(lookup, { namespace, name }, boundObjectRef ?? null)
  if (bound.kind === 'refused') return bound
  const { pod } = bound
  if (caller.kind === 'node' && pod?.spec?.nodeName !== caller.node)
    return refuse({
      code: 403,
      reason: 'Forbidden',
      message: `node ${caller.node} may ask for tokens that are bound to a pod on it, and for no others`,
    })
  const iat = Math.floor(nowMs / 1000)
  const aud = wanted.length === 0 ? [OWN_AUDIENCE] : wanted
  const exp = iat + lifeS
  const token = formatToken(key, {
    iss: OWN_AUDIENCE,
    sub: userOf({ kind: 'service account', namespace, name }),
    ...{ aud, iat, nbf: iat, exp },
    'kubernetes.io': { namespace, serviceaccount: { name, uid }, ...(pod && boundTo(lookup, pod)) },
  })
  // Nobody would take it.
  if (token.length > TOKEN_MAX_BYTES)
    return refuse(invalid(`spec.audiences are too long: the token would have more than ${TOKEN_MAX_BYTES} bytes`))
  const object = {
    ...{ kind: 'TokenRequest', apiVersion: AUTHENTICATION_VERSION },
    metadata: { name, namespace, creationTimestamp: timestampOf(iat) },
    spec: { audiences: aud, expirationSeconds: lifeS, boundObjectRef: boundObjectRef ?? null },
    status: { token, expirationTimestamp: timestampOf(exp) },
  }
  return { kind: 'issued', object }
}

/** A POST to `tokenreviews`. @returns undefined where the body is none. */
export function answerTokenReview(world: TokenWorld, body: Json): TokenReview | undefined {
  const spec = isObject(body) ? body['spec'] : undefined
  if (!isObject(spec) || typeof spec['token'] !== 'string') return undefined
  const wanted = textsIn(spec['audiences'] ?? [])
  if (wanted === undefined) return undefined
  const audiences = wanted.length === 0 ? [OWN_AUDIENCE] : wanted
  const asked = { apiVersion: AUTHENTICATION_VERSION, kind: 'TokenReview', metadata: {} }
  const taken = takeToken(world, spec['token'], audiences)
  if (taken.kind === 'refused')
    return { ...asked, spec: { token: '', audiences }, status: { authenticated: false, error: taken.reason } }
  const { aud, 'kubernetes.io': bound } = taken.claims
  const { pod, node } = bound
  const username = taken.claims.sub
  const user = {
    ...{ username, uid: bound.serviceaccount.uid, groups: groupsOf(taken.account) },
    extra: {
      ...(pod && { [`${EXTRA}pod-name`]: [pod.name], [`${EXTRA}pod-uid`]: [pod.uid] }),
      ...(node && { [`${EXTRA}node-name`]: [node.name], ...(node.uid && { [`${EXTRA}node-uid`]: [node.uid] }) }),
    },
  }
  const both = audiences.filter((each) => aud.includes(each))
  return { ...asked, spec: { token: '', audiences }, status: { authenticated: true, audiences: both, user } }
}

/** Who shows this token to the API itself; undefined where it counts for nothing here. */
export function accountOf(world: TokenWorld, token: string): ServiceAccount | undefined {
  const taken = takeToken(world, token, [OWN_AUDIENCE])
  return taken.kind === 'taken' ? taken.account : undefined
}

export const groupsOf = ({ namespace }: ServiceAccount): readonly string[] => [
  'system:serviceaccounts',
  `system:serviceaccounts:${namespace}`,
  'system:authenticated',
]

function takeToken({ key, lookup, nowMs }: TokenWorld, text: string, audiences: readonly string[]): Taken {
  const claims = parseToken(key, text.trim())
  if (claims === undefined) return { kind: 'refused', reason: 'the token was not issued here' }
  const reason = reasonAgainst(claims, audiences, lookup, nowMs)
  if (reason !== undefined) return { kind: 'refused', reason }
  const { namespace, serviceaccount } = claims['kubernetes.io']
  return { kind: 'taken', claims, account: { kind: 'service account', namespace, name: serviceaccount.name } }
}

function reasonAgainst(
  { aud, nbf, exp, 'kubernetes.io': bound }: TokenClaims,
  audiences: readonly string[],
  lookup: Lookup,
  nowMs: number,
): string | undefined {
  const { namespace, serviceaccount, pod } = bound
  const nowS = nowMs / 1000
  if (nowS >= exp) return `the token expired at ${timestampOf(exp)}`
  // A clock that was set back is no reason to part with everybody.
  if (nowS < nbf - LIFE_S.min) return `the token counts from ${timestampOf(nbf)} on`
  if (!audiences.some((each) => aud.includes(each)))
    return `the token is for the audiences ${aud.join(', ')}, and not for ${audiences.join(', ')}`
  if (lookup(builtIn('ServiceAccount'), namespace, serviceaccount.name)?.metadata?.uid !== serviceaccount.uid)
    return `the ServiceAccount ${namespace}/${serviceaccount.name} is gone`
  if (pod !== undefined && lookup(builtIn('Pod'), namespace, pod.name)?.metadata?.uid !== pod.uid)
    return `the pod ${namespace}/${pod.name} that the token is bound to is gone`
  return undefined
}

type BoundPod =
  | { readonly kind: 'pod'; readonly pod: Pod | undefined }
  | { readonly kind: 'refused'; readonly failure: Failure }

function boundPod(
  lookup: Lookup,
  account: { readonly namespace: string; readonly name: string },
  reference: Json,
): BoundPod {
  if (reference === null) return { kind: 'pod', pod: undefined }
  const { kind: kindName, name, uid } = isObject(reference) ? reference : {}
  if (kindName !== 'Pod' || typeof name !== 'string')
    return refuse(invalid('spec.boundObjectRef names no Pod; tokens are bound to nothing else here'))
  const kind = builtIn('Pod')
  const pod = lookup(kind, account.namespace, name) as Pod | undefined
  if (pod === undefined) return refuse(notFound(kind, name))
  if (uid !== undefined && uid !== '' && uid !== pod.metadata?.uid) return refuse(conflict(kind, name))
  if ((pod.spec?.serviceAccountName ?? 'default') !== account.name)
    return refuse(invalid(`pod ${name} has another ServiceAccount than ${account.name}`))
  return { kind: 'pod', pod }
}

function boundTo(lookup: Lookup, { metadata, spec }: Pod): Pick<TokenClaims['kubernetes.io'], 'pod' | 'node'> {
  const { nodeName = '' } = spec ?? {}
  const uid = lookup(builtIn('Node'), '', nodeName)?.metadata?.uid
  return {
    pod: { name: metadata?.name ?? '', uid: metadata?.uid ?? '' },
    ...(nodeName !== '' && { node: { name: nodeName, ...(uid !== undefined && { uid }) } }),
  }
}

const textsIn = (value: Json): readonly string[] | undefined =>
  Array.isArray(value) && value.every((each) => typeof each === 'string') ? (value as readonly string[]) : undefined
const timestampOf = (seconds: number): string => new Date(seconds * 1000).toISOString().replace(/\.\d+Z$/, 'Z')
const refuse = (failure: Failure): { readonly kind: 'refused'; readonly failure: Failure } => ({
  kind: 'refused',
  failure,
})
