// What the tokens of pods are good for, held against any Kubernetes API on which the chart is installed with pods that join: a
// real one, and the embedded one.

import { X509Certificate } from 'node:crypto'
import { mkdirSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import type { Test } from 'tap'
import { createApiClient, type ApiClient } from '../../lib/k8s/api-client.ts'
import { createLog } from '../../lib/log.ts'
import { enrolPod } from '../../lib/net/enrolment.ts'
import { createIssuer } from '../../relay/issuer-server.ts'
import { createTokenReviewer } from '../../relay/token-review-client.ts'
import { until } from '../lib/until.ts'
import { createMesh } from '../relay/mesh.ts'

export const NAMESPACE = 'fulmar-system'
const NODE = 'cloud-1'
const DAY_MS = 86_400_000
const log = createLog('test', 'silent')

export type TokenApi = {
  readonly server: string
  /** PEM. */
  readonly ca: string
  /** As a person with all rights: a POST of JSON. */
  readonly post: (path: string, body: string) => Promise<string>
  /** It has a Node `cloud-1`. @param pod JSON. */
  readonly addPod: (name: string, pod: string) => Promise<unknown>
  readonly removePod: (name: string) => Promise<unknown>
}
export type TokenWish = { readonly audience?: string; readonly pod?: string }

/** By TokenRequest, as kubelets have them. @param pod that it is bound to. */
export async function tokenOf(
  { post }: Pick<TokenApi, 'post'>,
  account: string,
  { audience, pod }: TokenWish = {},
): Promise<string> {
  const asked = {
    ...{ apiVersion: 'authentication.k8s.io/v1', kind: 'TokenRequest' },
    spec: {
      audiences: audience === undefined ? [] : [audience],
      ...(pod !== undefined && { boundObjectRef: { apiVersion: 'v1', kind: 'Pod', name: pod } }),
    },
  }
  const answer = await post(`/api/v1/namespaces/${NAMESPACE}/serviceaccounts/${account}/token`, JSON.stringify(asked))
  return (JSON.parse(answer) as { readonly status: { readonly token: string } }).status.token
}

/** Whoever shows the token of that account. */
export async function clientOf(api: TokenApi, account: string): Promise<ApiClient> {
  const token = await tokenOf(api, account)
  return createApiClient({ server: api.server, ca: api.ca, token: () => token })
}

export async function podTokens(t: Test, api: TokenApi): Promise<void> {
  const podOf = (name: string, account: string): string =>
    JSON.stringify({
      ...{ apiVersion: 'v1', kind: 'Pod', metadata: { name, namespace: NAMESPACE } },
      spec: { nodeName: NODE, serviceAccountName: account, containers: [{ name: 'c', image: 'i' }] },
    })
  await api.addPod('agent-x', podOf('agent-x', 'fulmar-agent'))
  await api.addPod('stranger-x', podOf('stranger-x', 'fulmar-relay'))
  const audience = 'fulmar'
  const client = await clientOf(api, 'fulmar-relay')
  t.teardown(() => client.close())
  const review = createTokenReviewer({ client, accounts: [`${NAMESPACE}/fulmar-agent`], log })

  const good = await tokenOf(api, 'fulmar-agent', { audience, pod: 'agent-x' })
  t.same(await review(good), { kind: 'node', node: NODE }, 'the node that the pod of a token runs on')
  const refused: readonly (readonly [string, string, RegExp])[] = [
    ['for the API itself', await tokenOf(api, 'fulmar-agent', { pod: 'agent-x' }), /does not accept|not for the audi/],
    ['of no pod', await tokenOf(api, 'fulmar-agent', { audience }), /bound to no pod/],
    ['of another account', await tokenOf(api, 'fulmar-relay', { audience, pod: 'stranger-x' }), /none of --service-/],
    ['cut off', good.slice(0, -8), /does not accept/],
  ]
  for (const [name, token, message] of refused)
    t.match(await review(token), { kind: 'refused', status: 403, message }, `a token ${name}`)

  const mesh = await createMesh(t)
  const { handle } = createIssuer({
    ...{ stateDir: mesh.stateDir, authority: mesh.authority, relays: [], stun: [] },
    ...{ certificateLifeMs: DAY_MS, renewalGraceMs: DAY_MS, now: Date.now, review, log },
  })
  const { port } = await mesh.listen({ join: handle })
  const folder = join(mesh.stateDir, 'pod')
  const [caFile, tokenFile] = [join(folder, 'ca.crt'), join(folder, 'token')]
  mkdirSync(folder)
  writeFileSync(caFile, mesh.authority.certificatePem)
  writeFileSync(tokenFile, good)
  const pod = { relay: new URL(`https://127.0.0.1:${port}`), caFile, tokenFile }
  const enrolled = await enrolPod(join(folder, 'node'), { ...pod, node: undefined })
  t.equal(new X509Certificate(enrolled.certificatePem).subject, `O=system:nodes\nCN=system:node:${NODE}`, 'it joins')
  const asOther = enrolPod(join(folder, 'other'), { ...pod, node: 'edge-1' })
  await t.rejects(asOther, { code: 'FULMAR_SERVICE_ACCOUNT_OTHER_NODE' }, 'as no other node')

  await api.removePod('agent-x')
  const gone = async () => (await review(good)).kind === 'refused'
  await until(gone, 'a token of a pod that is gone is refused')
}
