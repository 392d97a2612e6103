// Replicas of one service in two pools, without the cloud: a pod that is killed, one that falls silent, a node that freezes,
// a tunnel that is cut. Calls from other pods stop failing within seconds, in both families, and what comes back is used
// again as soon. Every fault of one pool alone is felt by callers in both.

import { writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { setTimeout as sleep } from 'node:timers/promises'
import t from 'tap'
import { stringify } from 'yaml'
import type { AgentStatus } from '../../lib/status.ts'
import { startCalls } from '../lab/first-contact.ts'
import type { Call } from '../lab/caller.ts'
import { cgroupRoot } from '../lab/machine.ts'
import { cgroupOf } from '../lab/names.ts'
import { addressOf, directOnce, failuresOf, getOnce, openMesh, UNDER_LOAD, until } from './mesh.ts'

t.setTimeout(300_000)

const [BAY, CAPE] = ['bay', 'cape'] as const
const REPLICAS = ['bay2', 'bay3', 'cape2', 'cape3'] as const
const CALLERS = ['bay1-client', 'cape1-client'] as const
const FAMILIES = [4, 6] as const
/** What `fleet` has an endpoint of on each of REPLICAS, `lone` has but one of. */
const SERVICES = [
  { name: 'fleet', vip: { 4: '10.96.0.77', 6: 'fd00:96::4d' }, nodes: REPLICAS },
  { name: 'lone', vip: { 4: '10.96.0.78', 6: 'fd00:96::4e' }, nodes: ['cape2'] },
] as const
const [FLEET, LONE] = SERVICES
/** What is promised: from the fault to the end of the last call that fails, and from its end to the first that is answered. */
const WITHIN_MS = 5_000
const CALL_TIMEOUT_MS = 1_000
const INTERVAL_MS = 50
const SETTLE_MS = 1_500

const port = { name: 'http', port: 80, targetPort: 8080, protocol: 'TCP' }
const objectsOf = (
  { name, vip, nodes }: (typeof SERVICES)[number],
  address: (node: string, family: 4 | 6) => string,
): readonly object[] => [
  {
    apiVersion: 'v1',
    kind: 'Service',
    metadata: { name, namespace: 'shop' },
    spec: { clusterIP: vip[4], clusterIPs: [vip[4], vip[6]], ipFamilies: ['IPv4', 'IPv6'], ports: [port] },
  },
  ...FAMILIES.map((family) => ({
    apiVersion: 'discovery.k8s.io/v1',
    kind: 'EndpointSlice',
    metadata: {
      name: `${name}-${family}`,
      namespace: 'shop',
      labels: { 'kubernetes.io/service-name': name },
    },
    addressType: `IPv${family}`,
    ports: [{ name: port.name, port: port.targetPort, protocol: port.protocol }],
    endpoints: nodes.map((node) => ({ addresses: [address(node, family)], nodeName: node })),
  })),
]

const lab = await openMesh(t, 'h', {
  pools: [BAY, CAPE],
  nodes: 3,
  prepare: (lab) => {
    const address = (node: string, family: 4 | 6) => addressOf(lab, `${node}-shop`, family)
    const text = SERVICES.flatMap((service) => objectsOf(service, address))
      .map((object) => stringify(object, { aliasDuplicateObjects: false }))
      .join('---\n')
    writeFileSync(join(lab.manifests, 'fleet.yaml'), text)
    return Promise.resolve()
  },
})

const freeze = (node: string, frozen: boolean): void =>
  writeFileSync(`${cgroupRoot()}/${cgroupOf(lab.id)}/${node}/cgroup.freeze`, frozen ? '1' : '0')
/** Nothing that is sent to the pod arrives, as when its link is down. */
const silence = async (host: string, silent: boolean): Promise<void> => {
  const table = 'table inet silence { chain in { type filter hook input priority 0; policy drop; }; }'
  await lab.exec(host, ['nft', silent ? table : 'delete table inet silence'])
}

type Fault = {
  readonly name: string
  readonly strike: () => Promise<void> | void
  readonly mend: () => Promise<void> | void
  /** Which nodes' replicas a node, or a caller on it, must do without. */
  readonly lost: (from: string) => readonly string[]
  readonly reason: RegExp
}
const faults: readonly Fault[] = [
  {
    name: 'a pod is killed',
    strike: () => lab.stop('bay2-shop', 'pod'),
    mend: () => lab.startAgain('bay2-shop', 'pod'),
    lost: () => ['bay2'],
    reason: /refuses/,
  },
  {
    name: 'a pod is silent',
    strike: () => silence('cape2-shop', true),
    mend: () => silence('cape2-shop', false),
    lost: () => ['cape2'],
    reason: /does not answer/,
  },
  {
    name: 'a node is frozen',
    strike: () => freeze('bay3', true),
    mend: () => freeze('bay3', false),
    lost: () => ['bay3'],
    reason: /node is silent/,
  },
  {
    name: 'the tunnel is cut',
    strike: () => lab.cut('wan', CAPE),
    mend: async () => {
      await lab.heal(CAPE)
      for (const pool of [BAY, CAPE]) await lab.cut('relay', pool)
    },
    lost: (from) => REPLICAS.filter((node) => !from.startsWith(node.slice(0, -1))),
    reason: /pool is not reached/,
  },
]

/** Of both pools; the cloud's reaches neither. */
const agentsOf = async (): Promise<readonly AgentStatus[]> =>
  (await lab.status()).daemons.flatMap(({ status }) =>
    status.kind === 'agent' && (status.pool === BAY || status.pool === CAPE) ? [status] : [],
  )
/** The cloud's own replicas of other services are cut off too. */
const suspectsOf = (agent: AgentStatus | undefined, { name }: (typeof SERVICES)[number] = FLEET) =>
  agent?.suspects?.filter(({ service }) => service === `shop/${name}`) ?? []
function leftOut(agents: readonly AgentStatus[], at: string) {
  const suspects = suspectsOf(agents.find(({ node }) => node === at)).filter(({ used }) => !used)
  const each = (of: (suspect: (typeof suspects)[number]) => string) => [...new Set(suspects.map(of))].toSorted()
  return { nodes: each(({ node }) => node ?? ''), reasons: each(({ reason }) => reason) }
}
const nodeIn = ({ body, status }: Call): string | undefined =>
  status === 200 ? (JSON.parse(body) as { node: string }).node : undefined

for (const host of CALLERS) for (const family of FAMILIES) await getOnce(lab, host, urlOf(family), family)
await directOnce(lab, [BAY, CAPE])
for (const pool of [BAY, CAPE]) await lab.cut('relay', pool)

function urlOf(family: 4 | 6, { vip }: (typeof SERVICES)[number] = FLEET): string {
  return `http://${family === 4 ? vip[4] : `[${vip[6]}]`}/`
}

for (const { name, strike, mend, lost, reason } of faults)
  t.test(`without the cloud, ${name}`, async (t) => {
    const watched = CALLERS.flatMap((host) =>
      FAMILIES.map((family) => ({
        host,
        family,
        calls: startCalls(lab, host, {
          url: urlOf(family),
          family,
          intervalMs: INTERVAL_MS,
          timeoutMs: CALL_TIMEOUT_MS,
          successes: 0,
        }),
      })),
    )
    await sleep(1_000)
    const struckAt = Date.now()
    await strike()
    // Also where nobody calls: the nodes of a pool hear of each other's findings.
    const isLeftOut = (agents: readonly AgentStatus[], node: string) =>
      leftOut(agents, node).nodes.join() === lost(node).join()
    await until('what is lost is left out by every node', async () => {
      const agents = await agentsOf()
      return agents.every(({ node }) => isLeftOut(agents, node))
    })
    t.comment(`left out by every node after ${Date.now() - struckAt} ms`)
    await sleep(SETTLE_MS)
    const agents = await agentsOf()
    const mendedAt = Date.now()
    await mend()
    await until('all is well again', async () => (await agentsOf()).every((agent) => suspectsOf(agent).length === 0))
    const backFor = ({ host, calls }: (typeof watched)[number]) =>
      calls.ended.find((call) => call.at >= mendedAt && lost(host).includes(nodeIn(call) ?? ''))
    await until('every caller has met what was lost', () => watched.every((each) => backFor(each) !== undefined))
    await sleep(SETTLE_MS)

    for (const each of watched) {
      const { host, family, calls } = each
      const all = (await calls.stop()).toSorted((a, b) => a.at - b.at)
      const who = `${host}, IPv${family}`
      const failed = failuresOf(all.filter(({ at }) => at < mendedAt))
      const lastMs = Math.round(Math.max(0, ...failed.map(({ at, ms }) => at + ms - struckAt)))
      const back = backFor(each)
      const backMs = back === undefined ? Infinity : Math.round(back.at + back.ms - mendedAt)
      t.comment(
        `${who}: ${failed.length} of ${all.length} calls failed, the last ${lastMs} ms after the fault; used again after ${backMs} ms`,
      )
      t.ok(lastMs <= WITHIN_MS * UNDER_LOAD, `${who}: the last call fails ${lastMs} ms after the fault`)
      t.ok(backMs <= WITHIN_MS * UNDER_LOAD, `${who}: what is lost is used again ${backMs} ms after its return`)
      const between = all.filter(({ at }) => at > mendedAt - SETTLE_MS / 2 && at < mendedAt)
      t.ok(between.length > 0 && failuresOf(between).length === 0, `${who}: no call fails any more`)
      t.notOk(
        between.map(nodeIn).some((node) => lost(host).includes(node ?? '')),
        `${who}: what is lost is not used`,
      )
      t.equal(failuresOf(all.filter(({ at }) => at > mendedAt)).length, 0, `${who}: no call fails as it returns`)
    }
    for (const caller of CALLERS) {
      const { nodes, reasons } = leftOut(agents, caller.slice(0, -'-client'.length))
      t.strictSame(nodes, lost(caller), `${caller}: left out`)
      t.ok(
        reasons.some((each) => reason.test(each)),
        `${caller}: why: ${reasons.join()}`,
      )
    }
  })

t.test('without the cloud, the last endpoint is used in spite of suspicion, and the status says so', async (t) => {
  await silence('cape2-shop', true)
  const calls = startCalls(lab, 'bay1-client', {
    url: urlOf(4, LONE),
    family: 4,
    intervalMs: INTERVAL_MS,
    timeoutMs: CALL_TIMEOUT_MS,
    successes: 0,
  })
  const own = await until('every node of the pool suspects it', async () => {
    const agents = (await agentsOf()).filter(({ pool }) => pool === BAY)
    return agents.every((agent) => suspectsOf(agent, LONE).length > 0) && agents
  })
  for (const agent of own) {
    const { node } = agent
    t.match(suspectsOf(agent, LONE), [{ node: 'cape2', used: true, reason: /does not answer/ }], `${node}: it is used`)
    t.match(suspectsOf(agent), [{ node: 'cape2', used: false }], `${node}: where there are others it is left out`)
  }
  const text = (await lab.exec('bay1', ['fulmar', 'status'])).stdout.replaceAll(/\s+/g, ' ')
  t.match(text, /shop\/lone: endpoint \S+ on cape2 is used for want of a better one: it does not answer/)
  t.match(text, /shop\/fleet: endpoint \S+ on cape2 is left out: it does not answer/)
  await silence('cape2-shop', false)
  const mendedAt = Date.now()
  await until('nothing is suspected any more', async () =>
    (await agentsOf()).every((agent) => suspectsOf(agent, LONE).length === 0),
  )
  const after = (await calls.stop()).filter(({ at }) => at > mendedAt)
  t.ok(after.length > 0 && failuresOf(after).length === 0, `none of ${after.length} calls fails once it is back`)
})

t.test('an agent that is killed takes no endpoint of its node with it', async (t) => {
  const calls = startCalls(lab, 'bay1-client', {
    url: urlOf(4),
    family: 4,
    intervalMs: INTERVAL_MS,
    timeoutMs: CALL_TIMEOUT_MS,
    successes: 0,
  })
  await lab.stop('bay3', 'agent')
  // Longer than a silent node is believed to be alive.
  await sleep(4_000)
  const agents = await agentsOf()
  t.strictSame(
    agents.flatMap((agent) => suspectsOf(agent)),
    [],
  )
  const all = await calls.stop()
  t.equal(failuresOf(all).length, 0, `none of ${all.length} calls fails`)
  t.ok(
    all.slice(-40).some((call) => nodeIn(call) === 'bay3'),
    'and its replica is used to the end',
  )
  await lab.startAgain('bay3', 'agent')
})
