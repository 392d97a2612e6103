// What `fulmar doctor` looks at between the node and the cloud: relays, STUN, clocks, certificates, the API and what the
// objects there say of prefixes.

import { createPrivateKey, X509Certificate } from 'node:crypto'
import { join } from 'node:path'
import type { SecureContextOptions } from 'node:tls'
import { openStunSocket, mappedOf } from '../gateway/stun-client.ts'
import { formatSocketAddress, parseSocketAddress } from '../lib/address.ts'
import { FAMILIES, contains, parseCidr } from '../lib/cidr.ts'
import {
  addressesDiagnosis,
  certificateDiagnosis,
  clockDiagnosis,
  prefixesDiagnosis,
  relayDiagnosis,
  stunDiagnosis,
  type CertificateFacts,
  type Diagnosis,
  type OwnAddress,
  type RelayAnswer,
  type StunAnswer,
} from '../lib/doctor.ts'
import { ApiError, isNotFound } from '../lib/k8s/api-error.ts'
import { createApiClient } from '../lib/k8s/api-client.ts'
import { NODE_POOLS, NODES, RAVEN_GATEWAYS, type KubernetesObject, type Resource } from '../lib/k8s/objects.ts'
import { poolsOf, type Pool } from '../lib/k8s/pools.ts'
import { apiClientOptions, type ApiAccess } from '../lib/net/api-access.ts'
import { issuerFolder } from '../lib/net/authority.ts'
import { readIfPresent } from '../lib/net/files.ts'
import { https } from '../lib/net/http.ts'
import { tlsOptions, type NodeIdentity } from '../lib/net/identity.ts'

const ANSWER_MS = 5_000
const STUN_MS = 3_000
const API_MS = 10_000
const REJOIN =
  'see that an agent runs and a relay answers: it renews it, for as long after its end as the relay’s --renewal-grace says; else fulmar join --force with a new token of fulmar token create'

type Answered = { readonly answer: RelayAnswer; readonly offsetMs: number | undefined }

/** All that needs the node's identity. @param own addresses of this machine that are not of the mesh. */
export async function diagnoseCloud(
  identity: NodeIdentity,
  access: ApiAccess & { readonly server: URL | undefined },
  own: readonly OwnAddress[],
): Promise<readonly Diagnosis[]> {
  const [relays, stun, objects] = await Promise.all([
    Promise.all([...new Set(identity.relays)].map((url) => askRelay(url, identity))),
    askStun(identity.stun),
    diagnoseObjects(identity, access, own),
  ])
  const nowMs = Date.now()
  return [
    ...relays.map(({ answer }) => relayDiagnosis(answer)),
    stunDiagnosis(stun),
    clockDiagnosis(relays.find(({ offsetMs }) => offsetMs !== undefined)?.offsetMs, nowMs),
    certificateDiagnosis(nodeCertificate(identity), nowMs, REJOIN),
    ...objects,
  ]
}

/**
 * Any answer at all is one: what it says matters to others. Where the certificate of the relay is of another time than our
 * clock's, one of the clocks is wrong; which one and by how much, an answer that nobody vouches for shows as well.
 */
async function askRelay(url: string, identity: NodeIdentity): Promise<Answered> {
  const asked = await ask(url, tlsOptions(identity))
  if (asked.answer.kind === 'answers' || !OF_ANOTHER_TIME.has(asked.answer.code)) return asked
  const { offsetMs } = await ask(url, { minVersion: 'TLSv1.2', rejectUnauthorized: false })
  return { ...asked, offsetMs }
}
const OF_ANOTHER_TIME: ReadonlySet<string> = new Set(['CERT_HAS_EXPIRED', 'CERT_NOT_YET_VALID'])

function ask(url: string, tls: SecureContextOptions & { readonly rejectUnauthorized?: false }): Promise<Answered> {
  const sentMs = Date.now()
  const sent = performance.now()
  return new Promise((resolve) => {
    const signal = AbortSignal.timeout(ANSWER_MS)
    const request = https.request(
      new URL('/version', url),
      { ...tls, method: 'GET', agent: false, signal },
      (response) => {
        const rttMs = performance.now() - sent
        response.resume()
        response.once('error', () => {})
        const date = Date.parse(response.headers.date ?? '')
        // The header has whole seconds, of which half have passed on average.
        const offsetMs = Number.isNaN(date) ? undefined : date + 500 - (sentMs + rttMs / 2)
        resolve({ answer: { kind: 'answers', url, rttMs }, offsetMs })
      },
    )
    request.once('error', ({ code = '', message }: NodeJS.ErrnoException) => {
      const fault = signal.aborted
        ? { code: 'ETIMEDOUT', message: `no answer within ${ANSWER_MS / 1000} s` }
        : { code, message }
      resolve({ answer: { kind: 'fails', url, ...fault }, offsetMs: undefined })
    })
    request.end()
  })
}

async function askStun(servers: readonly string[]): Promise<readonly StunAnswer[]> {
  const addresses = servers.map(parseSocketAddress).filter((address) => address !== undefined)
  const ending = new AbortController()
  try {
    const answers = FAMILIES.map(async (family): Promise<readonly StunAnswer[]> => {
      const ours = addresses.filter((address) => address.family === family)
      if (ours.length === 0) return []
      const { client } = await openStunSocket(family, ending.signal)
      return Promise.all(
        ours.map(async (server) => {
          const answer = await client.ask(server, STUN_MS)
          const mapped = answer && mappedOf(answer.message)
          return {
            server: formatSocketAddress(server),
            mapped: mapped === undefined ? undefined : formatSocketAddress(mapped),
            rttMs: answer?.rttMs ?? 0,
          }
        }),
      )
    })
    return (await Promise.all(answers)).flat()
  } finally {
    ending.abort()
  }
}

function nodeCertificate({ node, certificatePem, keyPem, caPem }: NodeIdentity): CertificateFacts {
  return factsOf(certificatePem, { name: 'this node', wanted: `system:node:${node}`, keyPem, caPem })
}

function factsOf(
  certificatePem: string,
  about: {
    readonly name: string
    readonly wanted: string | undefined
    readonly keyPem: string
    readonly caPem: string
  },
): CertificateFacts {
  const certificate = new X509Certificate(certificatePem)
  return {
    name: about.name,
    subject: /^CN=(.*)$/m.exec(certificate.subject)?.[1],
    wanted: about.wanted,
    fromMs: certificate.validFromDate.getTime(),
    untilMs: certificate.validToDate.getTime(),
    matchesKey: certificate.checkPrivateKey(createPrivateKey(about.keyPem)),
    matchesCa: certificate.verify(new X509Certificate(about.caPem).publicKey),
  }
}

/** Of the relay that runs on this machine; nothing where none did. */
export async function diagnoseRelayCertificate(stateDir: string): Promise<readonly Diagnosis[]> {
  const folder = issuerFolder(stateDir)
  const [authority, server] = await Promise.all(
    ['authority.pem', 'server.pem'].map((name) => readIfPresent(join(folder, name))),
  )
  if (authority === undefined) return []
  const nowMs = Date.now()
  const ca = factsOf(authority, { name: 'the mesh’s CA', wanted: undefined, keyPem: authority, caPem: authority })
  const own = server && factsOf(server, { name: 'the relay', wanted: undefined, keyPem: server, caPem: authority })
  return [
    certificateDiagnosis(ca, nowMs, 'there is no way to renew it yet: all nodes must join a relay with a new one'),
    ...(own ? [certificateDiagnosis(own, nowMs, 'a relay that runs renews it by itself')] : []),
  ]
}

async function diagnoseObjects(
  identity: NodeIdentity,
  access: ApiAccess & { readonly server: URL | undefined },
  own: readonly OwnAddress[],
): Promise<readonly Diagnosis[]> {
  const server = String(access.server ?? identity.server)
  const base = {
    name: `Kubernetes API ${server}`,
    why: 'nodes, services and endpoints come from there; what was known is on disk',
  }
  const client = createApiClient(apiClientOptions(server, identity, access))
  const signal = AbortSignal.timeout(API_MS)
  const list = async <T extends KubernetesObject>(resource: Resource<T>, optional = false): Promise<readonly T[]> => {
    try {
      return (await client.list(resource, signal)).items
    } catch (error) {
      if (optional && isNotFound(error)) return []
      throw error
    }
  }
  try {
    const [nodes, nodePools, gateways] = [
      await list(NODES),
      await list(NODE_POOLS, true),
      await list(RAVEN_GATEWAYS, true),
    ]
    const { pools, problems } = poolsOf(nodes, nodePools, gateways)
    const isKnown = nodes.some(({ metadata }) => metadata?.name === identity.node)
    return [
      isKnown
        ? { ...base, verdict: 'fine', found: `answers; it has ${nodes.length} nodes` }
        : {
            ...base,
            verdict: 'wrong',
            found: `it has no Node ${identity.node}, as which this machine joined`,
            remedy: 'join by the name that the kubelet registered, or add the Node',
          },
      ...prefixesDiagnosis(pools.length, problems),
      ...addressesDiagnosis(insideOthers(own, pools, identity.node)),
    ]
  } catch (error) {
    const status = error instanceof ApiError ? error.status : undefined
    return [{ ...base, verdict: 'wrong', found: (error as Error).message, remedy: apiRemedy(status) }]
  } finally {
    client.close()
  }
}

/** @param status of its answer; undefined where none came. */
function apiRemedy(status: number | undefined): string {
  switch (status) {
    case undefined:
      return 'see the relay above, or --server and --server-ca'
    case 401:
      return 'it does not know who asks: mend the certificate of this node, or the file of --server-token, whose token may have ended or be of another cluster'
    case 403:
      return 'let the node or its ServiceAccount list nodes, nodepools and gateways there (the chart’s roles)'
    default:
      return 'see the log of this API, and whether --server names one'
  }
}

function insideOthers(own: readonly OwnAddress[], pools: readonly Pool[], node: string) {
  const others = pools.filter(({ nodes }) => !nodes.some(({ name }) => name === node))
  return own.flatMap((each) =>
    others.flatMap(({ name, nodes }) =>
      nodes
        .flatMap(({ podCidrs }) => podCidrs)
        .filter((prefix) => {
          const cidr = parseCidr(prefix)
          return cidr !== undefined && contains(cidr, each.address)
        })
        .map((prefix) => ({ ...each, pool: name, prefix })),
    ),
  )
}
