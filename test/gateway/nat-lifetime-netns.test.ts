// How long real NATs keep an idle mapping: each type, with lifetimes that conntrack and the maps of cones are given.

import t from 'tap'
import { isRoot } from '../lib/netns.ts'
import { CLOUD, createNatNet, expiring, lossy, RULES, type NatNet } from './nat-net.ts'

t.setTimeout(180_000)

/** Two that a mapping of 4 s survives and two that it does not, each far enough from 4 s. */
const WAITS_MS = [1500, 3000, 5500, 6000]
type Row = readonly [name: string, rules: string, address: string, livedMs: number, diedMs: number | undefined]
const TYPES = [
  'firewall',
  'fullCone',
  'restricted',
  'portRestricted',
  'portNotPreserved',
  'byAddress',
  'symmetric',
  'symmetricRandom',
] as const
const rows: readonly Row[] = [
  ...TYPES.map((type): Row => [type, expiring(RULES[type], 3, 4), CLOUD[0], 3000, 5500]),
  ['open to packets for itself', expiring(RULES.portRestrictedOpenInput, 3, 4), CLOUD[0], 3000, 5500],
  ['IPv6 firewall', expiring(RULES.firewall, 3, 4), CLOUD[2], 3000, 5500],
  ['a stream lives longer than its first packets', expiring(RULES.portRestricted, 3, 9), CLOUD[0], 6000, undefined],
  ['nothing lives long enough', expiring(RULES.portRestricted, 1, 1), CLOUD[0], 0, 1500],
  ['every tenth packet is lost', lossy(expiring(RULES.portRestricted, 3, 4), 10), CLOUD[0], 3000, 5500],
]

t.test('behind real NATs', { skip: isRoot ? false : 'needs root for network namespaces' }, async (t) => {
  const LANES = 5
  const nets: NatNet[] = []
  t.teardown(() => Promise.all(nets.map((net) => net.close())))
  const waiting = [...rows]
  const lane = async (): Promise<void> => {
    const net = await createNatNet()
    nets.push(net)
    await net.server.call('startServer', CLOUD)
    for (let row = waiting.shift(); row !== undefined; row = waiting.shift()) {
      const [name, rules, address, livedMs, diedMs] = row
      await net.load(rules)
      const measure = () => net.client.call('lifetime', address, WAITS_MS)
      const first = await measure()
      // A length whose test came a second late, on a machine that stood still, is said to be unknown.
      const measured = diedMs !== undefined && first?.diedMs === undefined ? await measure() : first
      t.strictSame(measured, { livedMs, ...(diedMs && { diedMs }) }, name)
    }
  }
  await Promise.all(Array.from({ length: LANES }, lane))

  const [net] = nets as [NatNet]
  await net.load(RULES.blocked)
  t.equal(await net.client.call('lifetime', CLOUD[0], WAITS_MS), undefined, 'UDP blocked')
})
