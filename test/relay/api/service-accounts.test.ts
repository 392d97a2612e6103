import t from 'tap'
import type { KubernetesObject } from '../../../lib/k8s/objects.ts'
import { nodeInToken } from '../../../lib/wire/join.ts'
import type { Caller } from '../../../relay/api/access.ts'
import type { Kind } from '../../../relay/api/kinds.ts'
import type { Json } from '../../../relay/api/patch.ts'
import { formatToken, parseToken, tokenKeyOf } from '../../../relay/api/service-account-token.ts'
import {
  accountOf,
  answerTokenRequest,
  answerTokenReview,
  type TokenWorld,
} from '../../../relay/api/service-accounts.ts'
import { readReview } from '../../../relay/token-review.ts'
import { createAuthority, validFor } from '../../../lib/certificates.ts'

const NOW_MS = Date.UTC(2026, 0, 1)
const MASTER: Caller = { kind: 'user', user: 'root', groups: ['system:masters'] }
const EDGE1: Caller = { kind: 'node', node: 'edge1' }
const AGENT = { namespace: 'fulmar-system', name: 'fulmar-agent' }
const OWN_AUDIENCE = 'https://kubernetes.default.svc.cluster.local'
const key = new Uint8Array(32).fill(7)

const object = (kind: string, name: string, rest: object = {}): readonly [string, KubernetesObject] => [
  `${kind} ${name}`,
  { kind, metadata: { name, uid: `uid of ${name}` }, ...rest },
]
const pod = (name: string, nodeName: string, serviceAccountName: string) =>
  object('Pod', name, { spec: { nodeName, serviceAccountName, containers: [] } })
const objects = new Map<string, KubernetesObject>([
  object('ServiceAccount', 'fulmar-agent'),
  object('Node', 'edge1'),
  pod('agent-x', 'edge1', 'fulmar-agent'),
  pod('agent-y', 'edge2', 'fulmar-agent'),
  pod('other', 'edge1', 'default'),
])
const world = (without: readonly string[] = [], nowMs = NOW_MS): TokenWorld => ({
  key,
  nowMs,
  lookup: ({ kind }: Kind, _namespace, name) =>
    without.includes(`${kind} ${name}`) ? undefined : objects.get(`${kind} ${name}`),
})
const request = (pod?: string, rest: Record<string, Json> = {}): Json => ({
  spec: { audiences: ['fulmar'], ...(pod !== undefined && { boundObjectRef: { kind: 'Pod', name: pod } }), ...rest },
})
const issued = (body: Json, caller: Caller = MASTER) => {
  const answer = answerTokenRequest(world(), caller, AGENT, body)
  if (answer.kind === 'refused') throw new Error(answer.failure.message)
  return answer.object as { readonly status: { readonly token: string; readonly expirationTimestamp: string } }
}

t.test('TokenRequests', async (t) => {
  const { status } = issued(request('agent-x', { expirationSeconds: 3600 }), EDGE1)
  t.equal(status.expirationTimestamp, '2026-01-01T01:00:00Z')
  t.equal(nodeInToken(status.token), 'edge1', 'the claim that agents read')
  const rows: readonly (readonly [string, Caller, Json, number, RegExp])[] = [
    ['a pod elsewhere', EDGE1, request('agent-y'), 403, /node edge1 may ask for tokens that are bound to a pod on it/],
    ['no pod', EDGE1, request(), 403, /node edge1/],
    ['a pod that is not there', MASTER, request('ghost'), 404, /pods "ghost" not found/],
    ['the account of another pod', MASTER, request('other'), 422, /pod other has another ServiceAccount than fulmar-/],
    [
      'a pod that was replaced',
      MASTER,
      { spec: { boundObjectRef: { kind: 'Pod', name: 'agent-x', uid: 'old' } } },
      409,
      /./,
    ],
    ['a Secret', MASTER, { spec: { boundObjectRef: { kind: 'Secret', name: 'x' } } }, 422, /names no Pod/],
    ['too short a life', MASTER, request('agent-x', { expirationSeconds: 599 }), 422, /from 600 to/],
    ['no number', MASTER, request('agent-x', { expirationSeconds: '1h' }), 422, /expirationSeconds/],
    ['no audiences', MASTER, { spec: { audiences: 'fulmar' } }, 422, /audiences/],
    ['more than a token holds', MASTER, { spec: { audiences: ['x'.repeat(20_000)] } }, 422, /audiences are too long/],
    ['no spec', MASTER, { spec: [] }, 400, /no TokenRequest/],
    ['no object', MASTER, 'x', 400, /no TokenRequest/],
  ]
  for (const [name, caller, body, code, message] of rows)
    t.match(answerTokenRequest(world(), caller, AGENT, body), { kind: 'refused', failure: { code, message } }, name)
  t.match(answerTokenRequest(world(), MASTER, { ...AGENT, name: 'ghost' }, request()), { failure: { code: 404 } })
})

t.test('TokenReviews', async (t) => {
  const { token } = issued(request('agent-x')).status
  const review = (spec: Record<string, Json>, at = world()) => answerTokenReview(at, { spec })
  const good = review({ token, audiences: ['other', 'fulmar'] })
  t.match(good, {
    status: {
      authenticated: true,
      audiences: ['fulmar'],
      user: {
        username: 'system:serviceaccount:fulmar-system:fulmar-agent',
        groups: ['system:serviceaccounts', 'system:serviceaccounts:fulmar-system', 'system:authenticated'],
        extra: {
          'authentication.kubernetes.io/pod-name': ['agent-x'],
          'authentication.kubernetes.io/node-name': ['edge1'],
          'authentication.kubernetes.io/node-uid': ['uid of edge1'],
        },
      },
    },
  })
  t.strictSame(
    readReview(good!, ['fulmar-system/fulmar-agent']),
    { kind: 'node', node: 'edge1' },
    'as the issuer reads it',
  )

  const [header, payload, signature] = token.split('.')
  const hour = NOW_MS + 3_600_000
  const rows: readonly (readonly [string, Record<string, Json>, TokenWorld, RegExp])[] = [
    ['another audience', { token, audiences: ['x'] }, world(), /for the audiences fulmar, and not for x/],
    ['the API’s own audience', { token }, world(), /and not for https:\/\/kubernetes/],
    ['it expired', { token, audiences: ['fulmar'] }, world([], hour), /expired at 2026-01-01T01:00:00Z/],
    ['the clock was set back', { token, audiences: ['fulmar'] }, world([], NOW_MS - 3_600_000), /counts from/],
    [
      'its pod is gone',
      { token, audiences: ['fulmar'] },
      world(['Pod agent-x']),
      /pod fulmar-system\/agent-x .* is gone/,
    ],
    ['its account is gone', { token, audiences: ['fulmar'] }, world(['ServiceAccount fulmar-agent']), /is gone/],
    ['of another key', { token, audiences: ['fulmar'] }, { ...world(), key: new Uint8Array(32) }, /not issued here/],
    ['no signature', { token: `${header}.${payload}.`, audiences: ['fulmar'] }, world(), /not issued here/],
    ['nothing', { token: '', audiences: ['fulmar'] }, world(), /not issued here/],
    [
      'a header that asks for nothing',
      {
        token: `${Buffer.from('{"alg":"none"}').toString('base64url')}.${payload}.${signature}`,
        audiences: ['fulmar'],
      },
      world(),
      /not issued here/,
    ],
  ]
  for (const [name, spec, at, error] of rows)
    t.match(review(spec, at), { status: { authenticated: false, error } }, name)
  t.equal(review({ audiences: ['fulmar'] }), undefined, 'no token')
  t.equal(review({ token, audiences: 'fulmar' }), undefined)
  t.equal(answerTokenReview(world(), null), undefined)
})

t.test('at the API itself', async (t) => {
  const own = issued({ spec: { boundObjectRef: { kind: 'Pod', name: 'agent-x' } } }).status.token
  t.strictSame(accountOf(world(), own), { kind: 'service account', ...AGENT })
  t.equal(accountOf(world(['Pod agent-x']), own), undefined, 'not without its pod')
  t.equal(
    accountOf(world(), issued(request('agent-x')).status.token),
    undefined,
    'one for joining is good for nothing else',
  )
  t.strictSame(parseToken(key, own)?.aud, [OWN_AUDIENCE])
})

t.test('the key is the CA’s', async (t) => {
  const [one, other] = await Promise.all(['a', 'b'].map((name) => createAuthority(name, validFor(NOW_MS, 1))))
  const claims = parseToken(key, issued(request('agent-x')).status.token)!
  const token = formatToken(tokenKeyOf(one!.keyPem), claims)
  t.strictSame(parseToken(tokenKeyOf(one!.keyPem), token), claims, 'of all relays that have it')
  t.equal(parseToken(tokenKeyOf(other!.keyPem), token), undefined)
})
