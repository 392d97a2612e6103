// What the guides tell people to run: every command and flag of ours exists, and what can run at a Kubernetes API without
// kubelets does, in their order, at a real one.

import { execFileSync } from 'node:child_process'
import { mkdtempSync, readFileSync, rmSync, symlinkSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { dirname, join } from 'node:path'
import t from 'tap'
import { find } from '../../lib/net/preflight.ts'
import { FULMAR } from '../lab/paths.ts'
import { CHART, findHelm, lacksHelm } from '../lab/helm.ts'
import { lacksKubeApiserver, startKubeApiserver } from '../lib/kube-apiserver.ts'
import { commandsOf } from './guide.ts'

t.setTimeout(180_000)
const NAMESPACE = 'fulmar-system'
const DEPLOY = dirname(CHART)

t.test('commands and flags', async (t) => {
  const text = ['README.md', 'kubectl.md'].map((page) => readFileSync(join(DEPLOY, page), 'utf8')).join('\n')
  const known = 'agent|gateway|relay|status|doctor|paths|join|token create|kubeconfig|forward|cleanup'
  const used = Map.groupBy(
    text.matchAll(new RegExp(`\\bfulmar (${known})\\b([^\`\\n]*)`, 'g')),
    ([, command = '']) => command,
  )
  t.ok(used.size >= 8, [...used.keys()].join(', '))
  for (const [command, uses] of used) {
    const help = execFileSync(process.execPath, [FULMAR, ...command.split(' '), '--help'], { encoding: 'utf8' })
    const flags = new Set(uses.flatMap(([, , rest = '']) => rest.match(/(?<!\S)--[a-z][a-z-]*/g) ?? []))
    for (const flag of flags) t.ok(help.includes(flag), `fulmar ${command} ${flag}`)
    t.match(help, new RegExp(`^fulmar ${command}`), command)
  }
})

/** As OpenYurt has it, as far as a removal goes. */
const POD_LABELS = { 'k8s-app': 'raven-agent-ds' }
const RAVEN = {
  ...{ apiVersion: 'apps/v1', kind: 'DaemonSet', metadata: { name: 'raven-agent-ds', namespace: 'kube-system' } },
  spec: {
    selector: { matchLabels: POD_LABELS },
    template: {
      metadata: { labels: POD_LABELS },
      spec: { containers: [{ name: 'raven-agent', image: 'raven-agent' }] },
    },
  },
}

const skip = lacksKubeApiserver() || lacksHelm() || (find('kubectl') === undefined && 'needs kubectl')

t.test('install, upgrade and take off', { skip }, async (t) => {
  const api = await startKubeApiserver(t)
  const home = mkdtempSync(join(tmpdir(), 'fulmar-guide-'))
  t.teardown(() => rmSync(home, { recursive: true }))
  symlinkSync(DEPLOY, join(home, 'deploy'))
  writeFileSync(join(home, 'my-values.yaml'), readFileSync(`${CHART}/values/kubeadm.yaml`))
  // What a relay's pod would print.
  writeFileSync(join(home, 'ca.crt'), api.caPem)
  const env = { HOME: home, KUBECONFIG: api.kubeconfig, PATH: `${dirname(findHelm()!)}:${process.env['PATH']}` }
  const run = (command: string): string =>
    execFileSync('sh', ['-c', command], { cwd: home, env, encoding: 'utf8', timeout: 90_000 })
  for (const name of ['h1', 's1'])
    await api.kubectl(['create', '-f', '-'], JSON.stringify({ apiVersion: 'v1', kind: 'Node', metadata: { name } }))
  const workloads = async (): Promise<readonly string[]> =>
    (await api.kubectl(['-n', NAMESPACE, 'get', 'daemonsets,deployments', '-o', 'name'])).split('\n').filter(Boolean)
  /** Without kubelets there are neither images nor pods. */
  const isOfPods = (command: string): boolean => /^docker |^kubectl .*\b(exec|debug) /.test(command)
  const follow = (heading: string): readonly string[] => {
    const commands = commandsOf('README.md', heading).filter((command) => !isOfPods(command))
    for (const command of commands) t.comment(`${command}\n${run(command)}`)
    return commands
  }

  follow('Before')
  t.match(
    await api.kubectl(['get', 'node', 'h1', '-o', 'jsonpath={.metadata.labels}']),
    /"fulmar\.dev\/gateway":"true"/,
  )
  t.equal(follow('Install').filter((command) => command.startsWith('helm ')).length, 2)
  const daemons = ['agent', 'gateway', 'relay'].map((name) => `daemonset.apps/fulmar-${name}`)
  t.same(await workloads(), daemons)
  const variable = 'jsonpath={.spec.template.spec.containers[0].env[?(@.name=="FULMAR_JOIN_RELAY")].value}'
  t.equal(
    await api.kubectl(['-n', NAMESPACE, 'get', 'daemonset', 'fulmar-agent', '-o', variable]),
    'https://203.0.113.10:443',
    'with the CA of the relay, pods join their nodes',
  )
  await api.kubectl(['create', '-f', '-'], JSON.stringify(RAVEN))
  const [removal = ''] = commandsOf('README.md', 'Move over')
  t.match(run(removal), /daemonset\.apps "raven-agent-ds" deleted/)
  follow('Upgrade')
  const [clean = '', uninstall = ''] = commandsOf('README.md', 'Take off')
  t.match(clean, /cleanup\.enabled=true --wait$/)
  // No kubelet makes a pod ready here.
  t.comment(run(clean.replace(' --wait', '')))
  t.same(await workloads(), ['daemonset.apps/fulmar-cleanup'], 'nothing runs beside what cleans')
  t.comment(run(uninstall))
  t.same(await workloads(), [])
  const left = await api.kubectl(['get', 'clusterroles,clusterrolebindings', '-l', 'app.kubernetes.io/name=fulmar'])
  t.equal(left, '', 'and no role is left')
})
