// A lab whose relay, agents and gateways are the chart's containers over the image's files: the checks of `npm start`, a
// gateway that is killed, and what doctor and cleanup find.

import { setTimeout as sleep } from 'node:timers/promises'
import t, { type Test } from 'tap'
import { parseAllDocuments, type Document } from 'yaml'
import type { Diagnosis } from '../../lib/doctor.ts'
import { listings } from '../mesh/listing.ts'
import { isRoot } from '../lib/netns.ts'
import { containerCommand, type PodSpec } from './container.ts'
import type { DaemonName } from './daemons.ts'
import { findPairs, measureFirstContact } from './first-contact.ts'
import { readFolder } from './folder.ts'
import { findHelm, renderChart } from './helm.ts'
import { imageRoot } from './image.ts'
import { openLab, type Lab } from './lab.ts'
import { pathsOf } from './names.ts'
import { verdictOf } from './timeline.ts'

t.setTimeout(280_000)
const skip =
  (process.env['LONG'] !== '1' && 'takes minutes: LONG=1') ||
  (findHelm() === undefined && 'needs helm: go install helm.sh/helm/v3/cmd/helm@v3.19.5') ||
  (!isRoot && 'needs root')
const WITHIN_MS = 30_000

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
  const { stdout } = await lab.exec(gateway, ['fulmar', 'doctor', '--json'])
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

  await uninstall(t, lab)
  t.strictSame(await listings(lab), before, 'nothing is left')
})

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
  const [document] = [parseAllDocuments(await renderChart({ cleanup: { enabled: true } }))].flat()
  const { spec } = (document as Document).toJS() as { spec: { template: { spec: PodSpec } } }
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
