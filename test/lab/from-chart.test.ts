// A lab whose relay, agents and gateways are the chart's containers over the image's files, which join by the tokens of their
// pods: the checks of `npm start`, what tokens are good for, a gateway that is killed, and what doctor and cleanup find.

import { setTimeout as sleep } from 'node:timers/promises'
import t, { type Test } from 'tap'
import type { Diagnosis } from '../../lib/doctor.ts'
import { listings } from '../mesh/listing.ts'
import { isRoot } from '../lib/netns.ts'
import { containerCommand, type PodSpec } from './container.ts'
import type { DaemonName } from './daemons.ts'
import { findPairs, measureFirstContact } from './first-contact.ts'
import { readFolder } from './folder.ts'
import { lacksHelm, objectsIn, renderChart } from './helm.ts'
import { imageRoot } from './image.ts'
import { openLab, type Lab, type Output } from './lab.ts'
import { pathsOf } from './names.ts'
import { verdictOf } from './timeline.ts'

t.setTimeout(280_000)
const skip = (process.env['LONG'] !== '1' && 'takes minutes: LONG=1') || lacksHelm() || (!isRoot && 'needs root')
const WITHIN_MS = 30_000
/** The pod may write there. */
const TRIED = '/var/cache/fulmar/tried'
const CA = '/var/run/secrets/fulmar-join/ca.crt'

t.test('by the chart', { skip }, async (t) => {
  let before: readonly string[] = []
  const lab = await openLab({
    id: `lf${process.pid % 100_000}c`,
    fromChart: true,
    until: 'nodes',
    prepare: async (made) => {
      before = await listings(made)
    },
  })
  t.teardown(() => lab.close())
  const { services, endpointSlices } = readFolder(lab.manifests)
  const [pair] = findPairs(lab, services, endpointSlices, 4)
  t.strictSame(verdictOf(await measureFirstContact(lab, pair!, () => {})), [], 'the checks of npm start')

  const { gateway } = lab.topology.pools.find(({ name }) => name === pair!.client.pool)!
  const doctor = lab.kubernetes!.commandIn(gateway, 'fulmar-gateway', ['fulmar', 'doctor', '--json'])
  const { stdout } = await lab.exec(gateway, doctor)
  const { diagnoses } = JSON.parse(stdout) as { readonly diagnoses: readonly Diagnosis[] }
  t.strictSame(
    diagnoses.filter(({ verdict }) => verdict === 'wrong').map(({ name, found }) => `${name}: ${found}`),
    [],
  )
  t.match(
    diagnoses.find(({ name }) => name === 'UDP to the relay'),
    { verdict: 'fine', found: /^seen as 198\.18\./ },
  )

  const call = async (): Promise<number> =>
    (await lab.exec(pair!.client.host, ['curl', '-s', '-m', '2', '-o', '/dev/null', pair!.url])).code
  const [tunnel, first] = [lab.pidOf(gateway, 'fm-direct'), lab.pidOf(gateway, 'gateway')]
  lab.kill(gateway, 'gateway')
  t.equal(await call(), 0, 'the tunnel outlives its gateway')
  for (const end = Date.now() + WITHIN_MS; Date.now() < end; await sleep(100)) {
    const pid = lab.pidOf(gateway, 'gateway')
    if (pid !== undefined && pid !== first) break
  }
  t.equal(lab.pidOf(gateway, 'fm-direct'), tunnel, 'wireguard-go goes on')
  t.equal(await call(), 0)

  await tokens(t, lab, gateway)
  await uninstall(t, lab)
  t.strictSame(await listings(lab), before, 'nothing is left')
})

/** Of a pod's ServiceAccount: its roles and no others, as long as it is there, and a certificate for its own node only. */
async function tokens(t: Test, lab: Lab, node: string): Promise<void> {
  const kubernetes = lab.kubernetes!
  const { server } = kubernetes.installed
  const fileOf = (volume: string, file: string) => kubernetes.fileOf(node, 'fulmar-agent', volume, file)
  /** From the node, as the agent's pod. */
  const ask = async (token: string, path: string): Promise<string> => {
    const header = `Authorization: Bearer ${token}`
    const words = ['-sk', '-m', '20', '-o', '/dev/null', '-w', '%{http_code}', '-H', header, `${server}${path}`]
    return (await lab.exec(node, ['curl', ...words])).stdout
  }
  /** As whoever has the token would, for a node of that name. */
  const join = async (token: string, as = node): Promise<Output> => {
    const [file, stateDir] = [`${TRIED}/token`, `${TRIED}/state`]
    const flags = ['--service-account-token', file, '--ca', CA, '--node', as, '--state-dir', stateDir]
    const words = ['fulmar', 'join', '--relay', lab.topology.relay.url, ...flags]
    const script = `trap 'rm -r ${TRIED}' EXIT; mkdir ${TRIED}; cat > ${file}; ${words.join(' ')}`
    const pod = kubernetes.commandIn(node, 'fulmar-agent', ['sh', '-ec', script])
    return lab.exec(node, pod, { input: token })
  }
  const first = { api: fileOf('api', 'token'), join: fileOf('join', 'token') }
  t.equal(await ask(first.api, '/api/v1/nodes'), '200', 'what its role says')
  t.equal(await ask(first.api, '/api/v1/configmaps'), '403', 'and nothing else')
  t.equal(await ask(first.join, '/api/v1/nodes'), '401', 'the token for joining is good for nothing else')
  t.match(await join(first.join), { code: 0, stdout: new RegExp(`as node ${node}`) })
  const other = lab.topology.nodes.find(({ name }) => name !== node)!.name
  t.match(await join(first.join, other), {
    code: 1,
    stderr: new RegExp(`is of a pod on node ${node}, the request for .*${other}`),
  })

  await kubernetes.renewVolumes([node])
  t.not(fileOf('api', 'token'), first.api, 'its kubelet renews what it mounts')
  const renewed = fileOf('api', 'token')
  t.equal(await ask(renewed, '/api/v1/nodes'), '200')
  await kubernetes.replacePod(node, 'fulmar-agent')
  t.equal(await ask(renewed, '/api/v1/nodes'), '401', 'the token of a pod that is gone counts no more')
  t.equal(await ask(fileOf('api', 'token'), '/api/v1/nodes'), '200', 'that of the next one does')
  t.match(await join(first.join), {
    code: 1,
    stderr: /pod fulmar-system\/fulmar-agent-\w+ that the token is bound to is gone/,
  })
}

/** `helm upgrade --set cleanup.enabled=true`: the daemons' pods end, and those that clean come. */
async function uninstall(t: Test, lab: Lab): Promise<void> {
  const { nodes, pools } = lab.topology
  const of = (hosts: readonly string[], ...daemons: readonly DaemonName[]) =>
    hosts.flatMap((host) => daemons.map((daemon) => [host, daemon] as const))
  const running = [
    ...of(
      pools.flatMap(({ gateways }) => gateways),
      ...(['gateway', 'fm-direct', 'fm-udp', 'fm-tcp'] as const),
    ),
    ...of(
      nodes.map(({ name }) => name),
      'agent',
    ),
    ...of(['cloud'], 'relay'),
  ]
  for (const [host, daemon] of running) await lab.stop(host, daemon, 'SIGTERM')
  const [cleaning] = objectsIn(await renderChart({ cleanup: { enabled: true } }))
  const { spec } = cleaning as unknown as { readonly spec: { readonly template: { readonly spec: PodSpec } } }
  const { initContainers = [], ...pod } = spec.template.spec
  const image = await imageRoot()
  for (const { name: node } of nodes) {
    const scratch = `${pathsOf(lab.id).host(node)}/pods/cleanup`
    const command = containerCommand({ pod: { ...pod, containers: initContainers }, node, image, scratch }, 'cleanup')
    const { code, stdout, stderr } = await lab.exec(node, command)
    t.equal(code, 0, `${node} is clean; ${stderr.trim()}`)
    t.match(stdout, /removed nft table ip fulmar\n/)
  }
}
