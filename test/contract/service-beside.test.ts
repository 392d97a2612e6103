// Beside kube-proxy: a service that both serve goes by ours; where ours is gone, theirs serves; where theirs goes, ours goes on.

import { execFileSync } from 'node:child_process'
import { join } from 'node:path'
import t, { type Test } from 'tap'
import type { ServiceSnapshot } from '../../agent/nft-loop.ts'
import { watchProxies } from '../../agent/proxies-loop.ts'
import { main as cleanUp } from '../../cli/cleanup.ts'
import { FAMILIES, type Family } from '../../lib/cidr.ts'
import { find } from '../../lib/net/preflight.ts'
import { enterCage } from '../agent/cage.ts'
import { ip } from '../agent/namespace.ts'
import { isRoot, until } from '../lib/netns.ts'
import { KUBE_PROXIES, LEGACY_PROGRAM, type Forward } from './kube-proxy.ts'
import type { Case, CaseCall } from './service-cases.ts'
import { snapshotOf } from './service-contract.ts'
import { log, nodeGroupOf, serve } from './service-node.ts'
import { destination } from './service-objects.ts'
import { ADDRESSES, buildWorld, PORT } from './service-world.ts'

const INDEX = 210
/** By ours it is `a` that answers, by theirs it is `b`. */
const CASE: Case = { name: 'shared', spec: { type: 'NodePort' }, endpoints: [['a']], calls: [] }
const CALLS = (['c', 'node', 'outside'] as const).flatMap((from) =>
  (['cluster', 'node'] as const).map((to): CaseCall => ({ from, to, expect: 'refused' })),
)
const asUdp = (family: Family) => ({ protocol: 'udp', ...destination(INDEX, CALLS[0]!, family), count: 1 }) as const
const forwards = FAMILIES.flatMap((family) =>
  (['tcp', 'udp'] as const).map((protocol): Forward => {
    const [cluster, node] = (['cluster', 'node'] as const).map((to) =>
      destination(INDEX, { from: 'c', to, expect: 'refused' }, family),
    )
    return {
      ...{ family, protocol, clusterIp: cluster!.address, port: cluster!.port },
      ...{ nodeAddress: node!.address, nodePort: node!.port },
      endpoint: { address: ADDRESSES.b[family], port: PORT },
    }
  }),
)

const cage = isRoot ? enterCage('fmb-', import.meta.url) : undefined
if (!isRoot) t.test('needs root', { skip: true }, () => {})
if (cage !== undefined) {
  const world = await buildWorld(`fmb-${process.pid}`)
  const node = nodeGroupOf(cage, world)
  const snapshot: ServiceSnapshot = snapshotOf(new Map([[INDEX, CASE]]))
  const startOurs = async (): Promise<() => Promise<void>> => {
    const ours = serve(node, { snapshot: () => snapshot })
    await ours.apply()
    return ours.stop
  }
  const state = t.testdir()
  const written: string[] = []
  const removeOurs = async (): Promise<void> => {
    const { write } = process.stdout
    process.stdout.write = ((text: string) => written.push(text) > 0) as typeof write
    await cleanUp(['--run-dir', join(state, 'run'), '--state-dir', join(state, 'state')], {}).finally(
      () => (process.stdout.write = write),
    )
  }
  const answeredBy = async (t: Test, name: string, when: string): Promise<void> => {
    // Flows of minutes before are remembered, and chance gives a new one the port of an old.
    for (const family of FAMILIES) execFileSync('conntrack', ['-F', '-f', `ipv${family}`], { stdio: 'pipe' })
    const answers = await Promise.all(
      CALLS.flatMap((call) =>
        FAMILIES.flatMap((family) =>
          (['tcp', 'udp'] as const).map(async (protocol) => {
            const asked = { protocol, ...destination(INDEX, call, family), count: 3 }
            const names = (await world.call(call.from, asked)).map((answer) => answer.split(' ')[0])
            const answer = [...new Set(names)].join(' and ')
            return answer === name ? [] : `${protocol}, IPv${family}, from ${call.from} to ${call.to}: ${answer}`
          }),
        ),
      ),
    )
    t.strictSame(answers.flat(), [], `${when}: ${answers.length} ways of calling, all answered by ${name}`)
  }

  for (const { mode, start, stop } of KUBE_PROXIES) {
    const lacks = mode === 'iptables-legacy' && find(LEGACY_PROGRAM) === undefined
    await t.test(`kube-proxy, ${mode}`, { skip: lacks && `needs ${LEGACY_PROGRAM}` }, async (t) => {
      start(forwards)
      await answeredBy(t, 'b', 'theirs alone')
      const watching = new AbortController()
      const proxies = await watchProxies({ group: node, onChange: () => undefined, log }, watching.signal)
      t.strictSame(proxies.here(), { names: [`kube-proxy (${mode.replace('-legacy', '')})`] }, 'it is seen')

      const stopOurs = await startOurs()
      await answeredBy(t, 'a', 'beside theirs')
      execFileSync('nft', ['flush', 'ruleset'])
      if (mode !== 'iptables-legacy') start(forwards)
      await until('ours is back after a flush', 2_000, async () => {
        const answers = await Promise.all(FAMILIES.map((family) => world.call('outside', asUdp(family))))
        return answers.every(([answer]) => answer!.startsWith('a '))
      })
      await answeredBy(t, 'a', 'both flushed and back, theirs first')

      await stopOurs()
      await answeredBy(t, 'a', 'without an agent')
      await removeOurs()
      await answeredBy(t, 'b', 'cleaned up')
      const stopAgain = await startOurs()
      stop()
      await answeredBy(t, 'a', 'without theirs')
      if (mode !== 'iptables-legacy')
        await until('theirs is not seen any more', 30_000, async () => proxies.here().names.length === 0)
      start(forwards)
      await answeredBy(t, 'a', 'theirs is back')
      await stopAgain()
      await removeOurs()
      stop()
      watching.abort()
      await proxies.done
    })
  }

  await t.test('kube-proxy, ipvs: it has ClusterIPs on a device of the node', async (t) => {
    ip('link', 'add', 'kube-ipvs0', 'type', 'bridge')
    for (const family of FAMILIES) {
      const { address } = destination(INDEX, CALLS[0]!, family)
      ip(
        'addr',
        'add',
        `${address}/${family === 4 ? 32 : 128}`,
        'dev',
        'kube-ipvs0',
        ...(family === 6 ? ['nodad'] : []),
      )
    }
    const watching = new AbortController()
    const proxies = await watchProxies({ group: node, onChange: () => undefined, log }, watching.signal)
    t.strictSame(proxies.here(), { names: ['kube-proxy (ipvs)'] }, 'it is seen')
    const stopOurs = await startOurs()
    await answeredBy(t, 'a', 'beside it')
    await stopOurs()
    watching.abort()
    await proxies.done
    ip('link', 'del', 'kube-ipvs0')
    await removeOurs()
  })
}
