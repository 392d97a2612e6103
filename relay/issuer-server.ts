// The issuer: POST /fulmar/v1/join turns a join token and a certificate request into a node's certificate. Whoever asks
// has no certificate yet; the token is what it has. It is looked up before anything that costs.

import { createHash, randomBytes } from 'node:crypto'
import type { IncomingMessage, ServerResponse } from 'node:http'
import { issueClient, readRequest, validFor, type CertificateRequest, type KeyPair } from '../lib/certificates.ts'
import type { Log } from '../lib/log.ts'
import { readToken, readTokenUse, useToken, type TokenUse } from '../lib/net/join-tokens.ts'
import { decodeJoinRequest, MAX_JOIN_BYTES, type JoinAnswer, type JoinRefusalCode } from '../lib/wire/join.ts'
import { createPrefixLimit, type PrefixLimit } from './prefix-limit.ts'
import { readBody } from './request-body.ts'

export type IssuerOptions = {
  readonly stateDir: string
  readonly authority: KeyPair
  /** What a node is told of the relay: its URLs and its STUN servers. */
  readonly relays: readonly string[]
  readonly stun: readonly string[]
  readonly nodeCertificateDays?: number
  /** Requests of one network that are looked at. */
  readonly limit?: PrefixLimit
  readonly now: () => number
  readonly log: Log
}

export type Issuer = { readonly handle: (request: IncomingMessage, response: ServerResponse) => void }

/** Joins that are worked on at a time; more are told to come back. */
const MAX_JOINS = 32
const RETRY_AFTER_S = 2
/** A large site that is set up joins at once; who guesses fills neither the disk's queue nor the log. */
const LIMIT = { perSecond: 20, burst: 500 }
/** Nodes do not renew their certificates yet. */
const NODE_CERTIFICATE_DAYS = 365

type Refusal = { readonly status: number; readonly code: JoinRefusalCode; readonly message: string }
type Outcome = { readonly kind: 'issued'; readonly answer: JoinAnswer } | ({ readonly kind: 'refused' } & Refusal)

export function createIssuer(options: IssuerOptions): Issuer {
  const { log } = options
  const admit = createPrefixLimit(options.limit ?? LIMIT, randomBytes(4).readInt32BE())
  let working = 0
  const answer = async (request: IncomingMessage): Promise<Outcome> => {
    if (!admit(request.socket.remoteAddress ?? '', performance.now())) return BUSY
    if (request.method !== 'POST') return malformed('is answered to POST only')
    const body = await readBody(request, MAX_JOIN_BYTES)
    // Counted from here: whoever sends its body slowly takes nobody's place.
    if (working >= MAX_JOINS) return BUSY
    working++
    try {
      return await join(options, body)
    } finally {
      working--
    }
  }
  return {
    handle(request, response) {
      const addr = request.socket.remoteAddress
      answer(request).then(
        (outcome) => {
          if (outcome.kind === 'issued') {
            log.info({ node: outcome.answer.node, addr }, 'node joined')
            return send(response, 200, outcome.answer)
          }
          log[outcome === BUSY ? 'debug' : 'warn'](
            { addr, code: outcome.code, reason: outcome.message },
            'join refused',
          )
          send(response, outcome.status, { code: outcome.code, message: outcome.message })
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

async function join(options: IssuerOptions, body: Buffer | undefined): Promise<Outcome> {
  const { stateDir, authority, now } = options
  const request = body === undefined ? undefined : decodeJoinRequest(body.toString())
  if (request === undefined) return malformed('is not a join request; use the fulmar join of the same version')
  const token = await readToken(stateDir, request.secret)
  if (token === undefined)
    return refuse(
      403,
      'FULMAR_TOKEN_UNKNOWN',
      'the token is not known here or expired long ago; make a new one with fulmar token create',
    )
  if (now() >= token.expiresAt) {
    const when = new Date(token.expiresAt).toISOString()
    return refuse(
      403,
      'FULMAR_TOKEN_EXPIRED',
      `the token expired at ${when}; make a new one with fulmar token create --node ${token.node}`,
    )
  }
  const csr = await readRequest(request.csr)
  if (csr === undefined)
    return malformed('holds no certificate request that is signed by a P-256, P-384 or Ed25519 key of its own')
  const { commonName, organization } = csr.subject
  if (commonName !== `system:node:${token.node}` || (organization ?? NODES) !== NODES)
    return refuse(
      403,
      'FULMAR_TOKEN_OTHER_NODE',
      `the token is for node ${token.node}, the request for ${commonName}; make a token for that node`,
    )

  // A join whose answer was lost on a bad link may be repeated: for the same key the token gives the same certificate,
  // which nobody else can use, until it expires. For another key it is used up, whatever happens to the first.
  const key = createHash('sha256').update(csr.spki).digest('base64url')
  const use =
    (await readTokenUse(stateDir, request.secret)) ?? (await firstUse(options, request.secret, token.node, csr, key))
  if (use.key !== key)
    return refuse(
      403,
      'FULMAR_TOKEN_USED',
      `the token for node ${token.node} was used before, by another key; make a new one with fulmar token create --node ${token.node}, ` +
        'and if nobody of yours used it, look who did',
    )
  const { relays, stun } = options
  return {
    kind: 'issued',
    answer: { version: 1, node: token.node, certificate: use.certificate, ca: authority.certificatePem, relays, stun },
  }
}

const NODES = 'system:nodes'

async function firstUse(
  { stateDir, authority, nodeCertificateDays = NODE_CERTIFICATE_DAYS, now }: IssuerOptions,
  secret: string,
  node: string,
  csr: CertificateRequest,
  key: string,
): Promise<TokenUse> {
  const subject = { commonName: `system:node:${node}`, organization: NODES }
  const certificate = await issueClient(authority, subject, csr.spki, validFor(now(), nodeCertificateDays))
  return useToken(stateDir, secret, { key, certificate })
}

const refuse = (status: number, code: JoinRefusalCode, message: string): Outcome => ({
  kind: 'refused',
  status,
  code,
  message,
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
