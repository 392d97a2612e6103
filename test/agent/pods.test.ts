// Which pods BPF leaves alone, and which groups are theirs.

import { mkdirSync } from 'node:fs'
import type { AddressInfo } from 'node:net'
import { join } from 'node:path'
import t from 'tap'
import { leftAlone, podOf } from '../../agent/pods.ts'
import { followPods } from '../../agent/pods-loop.ts'
import { createApiClient } from '../../lib/k8s/api-client.ts'
import type { Pod } from '../../lib/k8s/objects.ts'
import { createLog } from '../../lib/log.ts'
import { until } from '../lib/netns.ts'
import { serveApi } from './joined.ts'

const UID = '6f1c9f0e-3c1b-4a57-9d0e-0123456789ab'
const pod = (
  names: readonly string[],
  annotations: Record<string, string> = {},
  rest: object = {},
  phase = 'Running',
) =>
  ({
    metadata: { namespace: 'shop', name: 'web', uid: UID, resourceVersion: '1', annotations },
    spec: { nodeName: 'h1', containers: names.map((name) => ({ name })), ...rest },
    status: { phase },
  }) as Pod

t.test('pods that are left alone', async (t) => {
  const init = (name: string) => ({ initContainers: [{ name, restartPolicy: 'Always' }] })
  const nft = { 'fulmar.dev/service-path': 'nft' }
  const rows: readonly (readonly [name: string, pod: Pod, expected: string | undefined])[] = [
    ['a plain one', pod(['web']), undefined],
    ['one that says so', pod(['web'], nft), UID],
    ['one that says so by another word', pod(['web'], { 'fulmar.dev/service-path': 'none' }), undefined],
    ['Istio', pod(['web', 'istio-proxy']), UID],
    ['Istio, a native sidecar', pod(['web'], {}, init('istio-proxy')), UID],
    ['Istio, ambient', pod(['web'], { 'ambient.istio.io/redirection': 'enabled' }), UID],
    ['Linkerd', pod(['linkerd-proxy', 'web']), UID],
    [
      'a sidecar that takes nothing of it',
      pod(['web', 'istio-proxy'], { 'fulmar.dev/service-path': 'bpf' }),
      undefined,
    ],
    ['in the network of the node', pod(['istio-proxy'], {}, { hostNetwork: true }), undefined],
    ['in the network of the node, and says so', pod(['web'], nft, { hostNetwork: true }), UID],
    ['one that is over', pod(['web'], nft, {}, 'Succeeded'), undefined],
    ['a static one', pod(['web'], { ...nft, 'kubernetes.io/config.hash': 'd'.repeat(32) }), 'd'.repeat(32)],
  ]
  for (const [name, pod, expected] of rows) t.equal(leftAlone(pod), expected, name)
})

t.test('groups of pods', async (t) => {
  const slice = UID.replaceAll('-', '_')
  const rows: readonly (readonly [folder: string, uid: string | undefined])[] = [
    [`kubepods-burstable-pod${slice}.slice`, UID],
    [`kubepods-pod${slice}.slice`, UID],
    [`kubelet-kubepods-besteffort-pod${slice}.slice`, UID],
    [`pod${UID}`, UID],
    [`pod${'d'.repeat(32)}`, 'd'.repeat(32)],
    ['kubepods.slice', undefined],
    ['podman', undefined],
    [`xpod${UID}`, undefined],
  ]
  for (const [folder, uid] of rows) t.equal(podOf(folder), uid, folder)
})

t.test('they are followed and found', async (t) => {
  const cgroups = t.testdir()
  const group = join(
    cgroups,
    'kubepods.slice',
    'kubepods-burstable.slice',
    `kubepods-burstable-pod${UID.replaceAll('-', '_')}.slice`,
  )
  const elsewhere = pod(['istio-proxy'], {}, { nodeName: 'h2' })
  elsewhere.metadata = { ...elsewhere.metadata!, name: 'elsewhere', uid: UID.replace('6', '7') }
  const api = await serveApi({ '/api/v1/pods': [pod(['web', 'istio-proxy']), elsewhere] }, 0)
  const client = createApiClient({ server: `http://127.0.0.1:${(api.address() as AddressInfo).port}` })
  const controller = new AbortController()
  const options = {
    client,
    node: 'h1',
    cgroups: () => cgroups,
    file: join(t.testdirName, 'pods'),
    log: createLog('test', 'silent'),
  }
  const pods = followPods(options, controller.signal)
  t.strictSame(pods.groups(), [], 'nothing is known')
  mkdirSync(group, { recursive: true })
  await until('it is found', 5_000, async () => pods.groups().length > 0)
  t.strictSame(pods.groups(), [group])
  controller.abort()
  await pods.done
  api.close()
  api.closeAllConnections()

  const offline = new AbortController()
  const again = followPods(options, offline.signal)
  t.strictSame(again.groups(), [group], 'without the API: those that were known')
  offline.abort()
  await again.done
})
