// The chart as helm reads it, on a machine that has helm: linted, rendered with each set of values, and each object
// compared with the types of Kubernetes' own API.

import { mkdirSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { execFile, execFileSync } from 'node:child_process'
import { promisify } from 'node:util'
import t, { type Test } from 'tap'
import { parseReplicas } from '../../lib/replicas.ts'
import { daemonsOf, labelsOf, valuesOf } from '../lab/chart.ts'
import { generateManifests } from '../lab/manifests.ts'
import { readFolder } from '../lab/folder.ts'
import type { PodSpec } from '../lab/container.ts'
import { CHART, helm, lacksHelm, objectsIn, renderChart, template, VALUES, type RenderedObject } from '../lab/helm.ts'
import { generatedPools } from '../lab/options.ts'
import { FULMAR } from '../lab/paths.ts'
import { planTopology } from '../lab/topology.ts'

const skip = lacksHelm()
const CA = '-----BEGIN CERTIFICATE-----\nMIIB\n-----END CERTIFICATE-----\n'
const REPOSITORY = join(import.meta.dirname, '../..')
const CACHE = `${REPOSITORY}/node_modules/.cache/fulmar`

const names = (rendered: string): readonly string[] =>
  objectsIn(rendered).map(({ kind, metadata }) => `${kind} ${metadata.name}`)

/** Where Kubernetes’ types of a kind are. */
const TYPES: Readonly<Record<string, string>> = {
  ServiceAccount: 'core/v1',
  ConfigMap: 'core/v1',
  DaemonSet: 'apps/v1',
  Role: 'rbac/v1',
  RoleBinding: 'rbac/v1',
  ClusterRole: 'rbac/v1',
  ClusterRoleBinding: 'rbac/v1',
}

/** @returns what the compiler says of the objects as values of Kubernetes' types; empty if nothing is wrong. */
async function mistakes(objects: readonly RenderedObject[]): Promise<string> {
  const imports = Object.entries(TYPES).map(
    ([kind, path]) => `import type { ${kind} } from 'kubernetes-types/${path}.d.ts'`,
  )
  const values = objects.map((object, index) => `export const o${index}: ${object.kind} = ${JSON.stringify(object)}`)
  mkdirSync(CACHE, { recursive: true })
  const folder = mkdtempSync(join(CACHE, 'chart-'))
  try {
    writeFileSync(join(folder, 'objects.ts'), [...imports, ...values, ''].join('\n'))
    const flags = ['--noEmit', '--strict', '--module', 'nodenext', '--skipLibCheck', '--allowImportingTsExtensions']
    const words = [`${REPOSITORY}/node_modules/.bin/tsc`, '--ignoreConfig', ...flags, join(folder, 'objects.ts')]
    // What a test runner loads into each Node is none of the compiler's.
    await promisify(execFile)('env', ['-u', 'NODE_OPTIONS', ...words])
    return ''
  } catch (error) {
    return (error as { stdout?: string }).stdout || String(error)
  } finally {
    rmSync(folder, { recursive: true })
  }
}

t.test('lint and render', { skip }, async (t) => {
  const sets: readonly (readonly string[])[] = [
    [],
    ...VALUES.map((file) => ['--values', file]),
    ['--set', 'wireguardGo.enabled=true'],
    ['--set', 'cleanup.enabled=true'],
  ]
  const all = await Promise.all(
    sets.map(async (args) => {
      t.match(await helm('lint', '--strict', CHART, ...args), /0 chart\(s\) failed/, `lint ${args.join(' ')}`)
      return template(...args)
    }),
  )
  const [plain, kubeadm, openyurt, kubeedge, wireguard, cleanup] = all as [
    string,
    string,
    string,
    string,
    string,
    string,
  ]
  const daemons = [
    'ServiceAccount fulmar-agent',
    'ServiceAccount fulmar-gateway',
    'DaemonSet fulmar-agent',
    'DaemonSet fulmar-gateway',
  ]
  const roles = ['agent', 'gateway'].flatMap((name) => [
    `ClusterRole fulmar-${name}`,
    `ClusterRoleBinding fulmar-${name}`,
  ])
  t.strictSame(names(plain).toSorted(), daemons.toSorted(), 'no roles where no API is named')
  const relay = ['ServiceAccount', 'ClusterRole', 'ClusterRoleBinding'].map((kind) => `${kind} fulmar-relay`)
  const whole = [...daemons, ...roles, ...relay, 'DaemonSet fulmar-relay'].toSorted()
  t.strictSame(names(kubeadm).toSorted(), whole)
  t.strictSame(names(openyurt).toSorted(), whole)
  t.strictSame(names(kubeedge).toSorted(), daemons.toSorted(), 'no roles for an API that knows its callers')
  t.strictSame(names(wireguard).toSorted(), [...daemons, 'DaemonSet fulmar-wireguard-go'].toSorted())
  t.strictSame(names(cleanup), ['DaemonSet fulmar-cleanup'], 'nothing runs beside what cleans')

  const objects = all.flatMap(objectsIn)
  t.equal(await mistakes(objects), '', 'Kubernetes’ types')
  const broken = JSON.parse(JSON.stringify(objects[0]).replace('metadata', 'metadate')) as RenderedObject
  t.match(await mistakes([broken]), /metadate/, 'and a field that it does not have is found')
})

t.test('how daemons reach the API', { skip }, async (t) => {
  const variables = (rendered: string): readonly string[] =>
    objectsIn(rendered).flatMap(({ kind, metadata, spec }) => {
      const pod = (spec as { readonly template?: { readonly spec: PodSpec } } | undefined)?.template?.spec
      const env = pod?.containers[0]?.env ?? []
      return env.flatMap(({ name, value }) =>
        value === undefined ? [] : [`${kind} ${metadata.name} ${name}=${value}`],
      )
    })
  const [kubeadm, , kubeedge] = await Promise.all(VALUES.map((file) => template('--values', file)))
  const all = ['DaemonSet fulmar-agent', 'DaemonSet fulmar-gateway', 'DaemonSet fulmar-relay']
  t.strictSame(
    variables(kubeadm!).toSorted(),
    all
      .flatMap((name) => [
        `${name} FULMAR_SERVER=https://203.0.113.10:6443`,
        `${name} FULMAR_SERVER_CA=/var/run/secrets/fulmar/ca.crt`,
        `${name} FULMAR_SERVER_TOKEN=/var/run/secrets/fulmar/token`,
      ])
      .toSorted(),
  )
  t.strictSame(
    variables(kubeedge!).toSorted(),
    all.slice(0, 2).map((name) => `${name} FULMAR_SERVER=http://127.0.0.1:10550`),
  )
})

t.test('pods that join their nodes', { skip }, async (t) => {
  const identity = { ca: CA }
  const relay = { replicas: [{ node: 'cloud-1', public: ['2001:db8::1'] }] }
  const rendered = await renderChart({ identity, relay, api: { server: 'https://203.0.113.10:6443' } })
  t.equal(await mistakes(objectsIn(rendered)), '')
  t.ok(
    ['Role fulmar-relay', 'RoleBinding fulmar-relay', 'ConfigMap fulmar-mesh-ca'].every((name) =>
      names(rendered).includes(name),
    ),
  )
  const map = objectsIn(rendered).find(({ kind }) => kind === 'ConfigMap')
  t.equal((map?.['data'] as Readonly<Record<string, string>> | undefined)?.['ca.crt']?.trim(), identity.ca.trim())
  t.match(rendered, /FULMAR_JOIN_RELAY\n +value: "https:\/\/\[2001:db8::1\]:443"/)
  t.match(rendered, /FULMAR_SERVICE_ACCOUNTS\n +value: "fulmar-system\/fulmar-agent,fulmar-system\/fulmar-gateway"/)
  t.match(rendered, /tokenreviews/)
  t.notMatch(await template('--values', VALUES[0]!), /tokenreviews|FULMAR_JOIN/, 'only where it is asked for')
  await t.rejects(renderChart({ identity }), /name the relay too: identity\.relay/)
})

t.test('variables are flags of the daemons', { skip }, async (t) => {
  const relay = { replicas: [{ node: 'cloud-1', public: ['203.0.113.10'] }] }
  const identity = { ca: '-----BEGIN CERTIFICATE-----\n' }
  const rendered = await renderChart({ identity, relay, api: { server: 'https://203.0.113.10:6443' } })
  for (const daemon of ['agent', 'gateway', 'relay']) {
    const { env = [] } = podOf(rendered, `fulmar-${daemon}`).containers[0]!
    const names = env.flatMap(({ name }) => (name.startsWith('FULMAR_') ? [name] : []))
    const help = execFileSync(process.execPath, [FULMAR, daemon, '--help'], { encoding: 'utf8' })
    for (const name of names)
      t.ok(help.includes(`--${name.slice('FULMAR_'.length).toLowerCase().replaceAll('_', '-')} `), `${daemon}: ${name}`)
    t.ok(names.length >= 3, `${daemon} has ${names.length}`)
  }
})

t.test('several relays', { skip }, async (t) => {
  const replica = (name: string, ...addresses: readonly string[]) => ({ node: `cloud-${name}`, public: addresses })
  const one = await renderChart({ relay: { replicas: [replica('a', '203.0.113.10')] } })
  t.notMatch(one, /--replicas/)
  const relay = {
    authoritySecret: 'ca',
    replicas: [replica('a', '203.0.113.10', '2001:db8::1'), replica('b', 'b.example')],
  }
  const two = await renderChart({ relay })
  const urls = 'https://203.0.113.10:443+https://[2001:db8::1]:443,https://b.example:443'
  t.equal(startedOn(t, two, 'cloud-a'), `relay --public 203.0.113.10,2001:db8::1 --replicas ${urls}`)
  t.equal(startedOn(t, two, 'cloud-b'), `relay --public b.example --replicas ${urls}`, 'each as its node says')
  t.equal(parseReplicas(urls).length, 2, 'and one that a relay understands')
  t.equal(await mistakes(objectsIn(two)), '')
  const twice = renderChart({ relay: { replicas: [replica('a', '203.0.113.10'), replica('a', '203.0.113.11')] } })
  await t.rejects(twice, /node cloud-a is there twice/)
})

function podOf(rendered: string, name: string): PodSpec {
  const found = objectsIn(rendered).find(({ kind, metadata }) => kind === 'DaemonSet' && metadata.name === name)!
  const { spec } = found as unknown as { readonly spec: { readonly template: { readonly spec: PodSpec } } }
  return spec.template.spec
}

/** What the container of a relay makes of its node's name: the words after `fulmar`. */
function startedOn(t: Test, rendered: string, node: string): string {
  const folder = mkdtempSync(join(CACHE, 'relay-'))
  t.teardown(() => rmSync(folder, { recursive: true }))
  writeFileSync(join(folder, 'fulmar'), '#!/bin/sh\necho "$@"\n', { mode: 0o755 })
  const { command = [], args = [] } = podOf(rendered, 'fulmar-relay').containers[0]!
  const [program = '', ...words] = [...command, ...args]
  const env = { PATH: `${folder}:${process.env['PATH']}`, NODE_NAME: node }
  return execFileSync(program, words, { encoding: 'utf8', env }).trim()
}

t.test('values that are none are refused', { skip }, async (t) => {
  for (const wrong of [
    'agent.argz={}',
    'api.server=10.0.0.1:6443',
    'image.digest=sha256:1',
    'relay.replicas[0].node=cloud-1',
    'relay.replicas[0].node=$(id)',
    'hostFolders.state=/x',
    'gateway.enabled=maybe',
  ])
    await t.rejects(template('--set', wrong), /values don't meet the specifications/, wrong)
  for (const service of ['https://kubernetes.default.svc', 'https://kubernetes.default.svc.cluster.local:443'])
    await t.rejects(template('--set', `api.server=${service}`), /api\.server: .* is a Service/, service)
  t.match(await template('--set', 'api.server=https://api.svcs.example:6443'), /api\.svcs\.example/)
})

t.test('every mount and every right has its reason beside it', (t) => {
  for (const name of ['agent', 'gateway', 'relay', 'wireguard-go', 'cleanup']) {
    const lines = readFileSync(`${CHART}/templates/${name}.yaml`, 'utf8').split('\n')
    const wanting = lines.flatMap((line, index) => {
      const asks = /^\s+- name: \S+$/.test(line) && /^\s+mountPath: /.test(lines[index + 1] ?? '')
      const may = /^\s+(privileged|hostNetwork|hostPID): true/.test(line)
      return (asks || may) && !/^\s+#/.test(lines[index - 1] ?? '') ? [`${name}: ${line.trim()}`] : []
    })
    t.strictSame(
      wanting.filter((line) => !line.includes('name: wireguard') || name !== 'gateway'),
      [],
    )
  }
  t.end()
})

t.test('the lab’s daemons by the chart', { skip }, async (t) => {
  const folder = mkdtempSync(join(CACHE, 'manifests-'))
  t.teardown(() => rmSync(folder, { recursive: true }))
  for (const [name, yaml] of generateManifests({ pools: generatedPools(['east', 'west'], 2) }))
    writeFileSync(join(folder, name), yaml)
  const topology = planTopology(readFolder(folder), {
    id: 't',
    underlay: 'v4',
    overlapLans: false,
    firewall6: true,
    nat: new Map(),
  })
  const installed = { server: 'https://203.0.113.10:6443', meshCa: CA, authoritySecret: 'authority' }
  const options = { installed, cgroups: '/cg', relayFlags: [], agentFlags: [], gatewayFlags: ['--warm', 'all'] }
  const rendered = await renderChart(valuesOf(topology, options))
  const { relays, agents, tunnels, gateways, pods } = daemonsOf(rendered, topology, {
    labels: labelsOf(topology),
    image: '/image',
  })
  const hosts = (of: typeof agents) => of.map(({ host, daemon }) => `${host} ${daemon}`)
  t.strictSame(hosts(relays), ['cloud relay'])
  t.equal(pods.length, 1 + 5 + 3 + 3, 'a pod of each DaemonSet on each of its nodes')
  t.strictSame(
    hosts(agents),
    ['cloud', 'east1', 'east2', 'west1', 'west2'].map((host) => `${host} agent`),
  )
  t.strictSame(hosts(gateways), ['cloud gateway', 'east1 gateway', 'west1 gateway'])
  t.strictSame(hosts(tunnels).length, 9)
  t.match(agents[1]!.command.join(' '), /fulmar agent --cgroup \/cg\/fm-t\/east1/)
  t.match(gateways[1]!.command.join(' '), /fm-direct fm-udp fm-tcp[\s\S]*fulmar gateway --warm all/)
  t.match(
    relays[0]!.command.join(' '),
    /\+net_bind_service,\+net_admin --no-new-privs sh -ec [\s\S]*cloud\) set -- --public \S*203\.0\.113\.10\S* --stun/,
  )
})
