// The issuer: POST /fulmar/v1/join turns a join token and a certificate request into a node's certificate; whoever asks has
// no certificate yet, and the token, which is looked up before anything that costs, is what it has. POST /fulmar/v1/renew
// turns the certificate that a node has and a request for a new key into the next one (renewal.ts).

import { createHash, randomBytes, X509Certificate } from 'node:crypto'
import type { IncomingMessage, ServerResponse } from 'node:http'
import type { TLSSocket } from 'node:tls'
import {
  issueClient,
  issuedMs,
  readRequest,
  validFor,
  type CertificateRequest,
  type KeyPair,
} from '../lib/certificates.ts'
import type { Log } from '../lib/log.ts'
import type { Members } from '../lib/members.ts'
import { readToken, readTokenUse, useToken, type TokenUse } from '../lib/net/join-tokens.ts'
import {
  decodeJoinRequest,
  decodeRenewRequest,
  MAX_JOIN_BYTES,
  RENEW_PATH,
  type JoinAnswer,
  type JoinRefusalCode,
} from '../lib/wire/join.ts'
import { createPrefixLimit, type PrefixLimit } from './prefix-limit.ts'
import { judgeRenewal, type Refusal } from './renewal.ts'
import { readBody } from './request-body.ts'
import type { ReviewToken } from './token-review-client.ts'

export type IssuerOptions = {
  readonly stateDir: string
  readonly authority: KeyPair
  /** What a node is told of the relay: its URLs and its STUN servers. */
  readonly relays: readonly string[]
  readonly stun: readonly string[]
  /** How long a node's certificate lives. */
  readonly certificateLifeMs: number
  /** For how long after its end it may be renewed. */
  readonly renewalGraceMs: number
  /** Which nodes were deleted; without it, none is known to have been. */
  readonly members?: Pick<Members, 'deletedMs' | 'refusal'>
  /** Whose a ServiceAccount token is; without it, none is taken. */
  readonly review?: ReviewToken
  /** Requests of one network that are looked at. */
  readonly limit?: PrefixLimit
  readonly now: () => number
  readonly log: Log
}

export type Issuer = {
  /** Of both paths. */
  readonly handle: (request: IncomingMessage, response: ServerResponse) => void
}

/** Requests that are worked on at a time; more are told to come back. */
const MAX_WORKING = 32
const RETRY_AFTER_S = 2
/** A large site that is set up joins at once; who guesses fills neither the disk's queue nor the log. */
const LIMIT = { perSecond: 20, burst: 500 }
const DAY_MS = 86_400_000
const AFTER_DELETION_MS = 2_000
const NODES = 'system:nodes'

type Outcome =
  | { readonly kind: 'issued'; readonly node: string; readonly certificate: string }
  | ({ readonly kind: 'refused'; readonly node?: string } & Refusal)
/** What is said of a request in the log. */
type Deed = { readonly done: string; readonly refused: string }
const JOIN: Deed = { done: 'node joined', refused: 'join refused' }
const RENEWAL: Deed = { done: 'certificate renewed', refused: 'renewal refused' }

export function createIssuer(options: IssuerOptions): Issuer {
  const { log, relays, stun, authority } = options
  const ca = new X509Certificate(authority.certificatePem)
  const admit = createPrefixLimit(options.limit ?? LIMIT, randomBytes(4).readInt32BE())
  let working = 0
  const answer = async (request: IncomingMessage, deed: Deed): Promise<Outcome> => {
    if (!admit(request.socket.remoteAddress ?? '', performance.now())) return BUSY
    if (request.method !== 'POST') return malformed('is answered to POST only')
    const body = await readBody(request, MAX_JOIN_BYTES)
    // Counted from here: whoever sends its body slowly takes nobody's place.
    if (working >= MAX_WORKING) return BUSY
    working++
    try {
      const text = body?.toString()
      const presented = (request.socket as TLSSocket).getPeerX509Certificate()
      return await (deed === JOIN ? join(options, text) : renew(options, ca, presented, text))
    } finally {
      working--
    }
  }
  return {
    handle(request, response) {
      const addr = request.socket.remoteAddress
      const deed = request.url?.split('?', 1)[0] === RENEW_PATH ? RENEWAL : JOIN
      answer(request, deed).then(
        (outcome) => {
          if (outcome.kind === 'issued') {
            const { node, certificate } = outcome
            const until = new X509Certificate(certificate).validToDate.toISOString()
            log.info({ node, addr, until }, deed.done)
            const told: JoinAnswer = { version: 1, node, certificate, ca: authority.certificatePem, relays, stun }
            return send(response, 200, told)
          }
          const { node, code, message: reason } = outcome
          log[outcome === BUSY ? 'debug' : 'warn']({ ...(node && { node }), addr, code, reason }, deed.refused)
          send(response, outcome.status, { code, message: reason })
        },
        (err: unknown) => {
          // Nobody is there any more to be answered.
          if (!request.complete) return log.debug({ err, addr }, 'a join was not sent to its end')
          log.error({ err, addr }, 'cannot answer a join')
          send(response, 500, {
            code: 'FULMAR_JOIN_FAILED',
            message: 'the relay could not issue a certificate; its log says why',
          })
        },
      )
    },
  }
}

async function join(options: IssuerOptions, body: string | undefined): Promise<Outcome> {
  const { stateDir, now } = options
  const request = body === undefined ? undefined : decodeJoinRequest(body)
  if (request === undefined) return malformed('is not a join request; use the fulmar join of the same version')
  if ('serviceAccountToken' in request) return joinPod(options, request)
  const token = await readToken(stateDir, request.secret)
  if (token === undefined)
    return refuse(
      403,
      'FULMAR_TOKEN_UNKNOWN',
      'the token is not known here or expired long ago; make a new one with fulmar token create',
    )
  const { node } = token
  if (now() >= token.expiresAt) {
    const when = new Date(token.expiresAt).toISOString()
    return refuse(
      403,
      'FULMAR_TOKEN_EXPIRED',
      `the token expired at ${when}; make a new one with fulmar token create --node ${node}`,
      node,
    )
  }
  const csr = await requestOf(node, request.csr, OF_TOKEN)
  if ('kind' in csr) return csr

  // A join whose answer was lost on a bad link may be repeated: for the same key the token gives the same certificate,
  // which nobody else can use, until it expires. For another key it is used up, whatever happens to the first.
  const key = createHash('sha256').update(csr.spki).digest('base64url')
  const use =
    (await readTokenUse(stateDir, request.secret)) ?? (await firstUse(options, request.secret, node, csr, key))
  if (use.key !== key)
    return refuse(
      403,
      'FULMAR_TOKEN_USED',
      `the token for node ${node} was used before, by another key; make a new one with fulmar token create --node ${node}, ` +
        'and if nobody of yours used it, look who did',
      node,
    )
  return { kind: 'issued', node, certificate: use.certificate }
}

/** A pod may join its node as often as it likes: it is asked each time whether it is still there. */
async function joinPod(
  options: IssuerOptions,
  request: { readonly serviceAccountToken: string; readonly csr: string },
): Promise<Outcome> {
  if (options.review === undefined)
    return refuse(
      403,
      'FULMAR_SERVICE_ACCOUNT_REFUSED',
      'this relay takes no ServiceAccount tokens; give it --server and --service-accounts',
    )
  const bound = await options.review(request.serviceAccountToken)
  return bound.kind === 'refused' ? bound : certify(options, bound.node, request.csr, OF_POD)
}

async function firstUse(
  options: IssuerOptions,
  secret: string,
  node: string,
  csr: CertificateRequest,
  key: string,
): Promise<TokenUse> {
  return useToken(options.stateDir, secret, { key, certificate: await issue(options, node, csr) })
}

async function renew(
  options: IssuerOptions,
  ca: X509Certificate,
  presented: X509Certificate | undefined,
  body: string | undefined,
): Promise<Outcome> {
  const judged = judgeRenewal(presented, ca, options.now(), options.renewalGraceMs)
  if (judged.kind === 'refused') return judged
  const { node } = judged
  const gone = presented && options.members?.refusal(node, issuedMs(presented))
  if (gone !== undefined)
    return refuse(
      403,
      'FULMAR_NODE_DELETED',
      `${gone}; to have it back, run fulmar join --force with a new token on it`,
      node,
    )
  const request = body === undefined ? undefined : decodeRenewRequest(body)
  if (request === undefined) return malformed('is no request for a renewal')
  return certify(options, node, request.csr, OF_CERTIFICATE)
}

/** What is said to a request for another node than the one that was proven. */
type OtherNode = { readonly code: JoinRefusalCode; readonly proven: string; readonly rule: string }
const OF_TOKEN: OtherNode = {
  code: 'FULMAR_TOKEN_OTHER_NODE',
  proven: 'the token is for',
  rule: 'make a token for that node',
}
const OF_POD: OtherNode = {
  code: 'FULMAR_SERVICE_ACCOUNT_OTHER_NODE',
  proven: 'the token is of a pod on',
  rule: 'a pod joins its own node only',
}
const OF_CERTIFICATE: OtherNode = {
  code: 'FULMAR_CERTIFICATE_OTHER_NODE',
  proven: 'the certificate is of',
  rule: 'a node renews its own certificate only',
}

async function certify(options: IssuerOptions, node: string, text: string, other: OtherNode): Promise<Outcome> {
  const csr = await requestOf(node, text, other)
  return 'kind' in csr ? csr : { kind: 'issued', node, certificate: await issue(options, node, csr) }
}

/** @returns the request for the certificate of this node, or why it is none. */
async function requestOf(
  node: string,
  text: string,
  { code, proven, rule }: OtherNode,
): Promise<CertificateRequest | Outcome> {
  const csr = await readRequest(text)
  if (csr === undefined)
    return malformed('holds no certificate request that is signed by a P-256, P-384 or Ed25519 key of its own')
  const { commonName, organization } = csr.subject
  if (commonName === `system:node:${node}` && (organization ?? NODES) === NODES) return csr
  return refuse(403, code, `${proven} node ${node}, the request for ${commonName}: ${rule}`, node)
}

function issue({ authority, certificateLifeMs, members, now }: IssuerOptions, node: string, csr: CertificateRequest) {
  const subject = { commonName: `system:node:${node}`, organization: NODES }
  // Dates of certificates are whole seconds; this one must not look as if it were from before.
  const atMs = Math.max(now(), (members?.deletedMs(node) ?? -Infinity) + AFTER_DELETION_MS)
  return issueClient(authority, subject, csr.spki, validFor(atMs, certificateLifeMs / DAY_MS))
}

const refuse = (status: number, code: JoinRefusalCode, message: string, node?: string): Outcome => ({
  kind: 'refused',
  status,
  code,
  message,
  ...(node !== undefined && { node }),
})
const BUSY = refuse(503, 'FULMAR_JOIN_BUSY', 'many nodes join right now; try again in a moment')
const malformed = (what: string): Outcome => refuse(400, 'FULMAR_JOIN_MALFORMED', `the request ${what}`)

function send(response: ServerResponse, status: number, value: unknown): void {
  const body = `${JSON.stringify(value)}\n`
  if (status === 503) response.setHeader('retry-after', RETRY_AFTER_S)
  response.writeHead(status, {
    'content-type': 'application/json',
    'content-length': Buffer.byteLength(body),
    'cache-control': 'no-store',
    connection: 'close',
  })
  response.end(body)
}
