import t from 'tap'
import { isRoot } from '../lib/netns.ts'
import { CLOUD, createNatNet, RULES, WAN } from './nat-net.ts'
import type { Discovery } from './nat-remote.ts'

const EIM = 'endpoint-independent'
const ADM = 'address-dependent'
const APDM = 'address-and-port-dependent'

/** Where nothing is filtered, discovery is over in a few round trips; silence takes it about 1050 ms. */
const OPEN_MS = 100
const FILTERED_MS = 2000
const rows: readonly (readonly [string, keyof typeof RULES, 4 | 6, string, string, number])[] = [
  ['no NAT', 'none', 4, 'none', 'none', OPEN_MS],
  ['no NAT, stateful firewall', 'firewall', 4, 'none', APDM, FILTERED_MS],
  ['full cone', 'fullCone', 4, EIM, EIM, OPEN_MS],
  ['restricted', 'restricted', 4, EIM, ADM, FILTERED_MS],
  ['port restricted', 'portRestricted', 4, EIM, APDM, FILTERED_MS],
  ['port restricted, open to packets for itself', 'portRestrictedOpenInput', 4, EIM, APDM, FILTERED_MS],
  ['port not preserved', 'portNotPreserved', 4, EIM, APDM, FILTERED_MS],
  ['mapping by address', 'byAddress', 4, ADM, APDM, FILTERED_MS],
  ['symmetric, repeatable', 'symmetric', 4, APDM, APDM, FILTERED_MS],
  ['symmetric, random', 'symmetricRandom', 4, APDM, APDM, FILTERED_MS],
  ['IPv6, open', 'none', 6, 'none', 'none', OPEN_MS],
  ['IPv6, stateful firewall', 'firewall', 6, 'none', APDM, FILTERED_MS],
]

t.test('behind real NATs', { skip: isRoot ? false : 'needs root for network namespaces' }, async (t) => {
  const net = await createNatNet()
  t.teardown(net.close)
  await net.server.call('startServer', CLOUD)
  const discover = (address: string): Promise<Discovery> => net.client.call('discover', address)

  for (const [name, rules, family, mapping, filtering, withinMs] of rows) {
    await net.load(RULES[rules])
    const { nat, tookMs } = await discover(family === 4 ? CLOUD[0] : CLOUD[2])
    t.strictSame(nat, { mapping, filtering, udp: 'open' }, name)
    t.ok(tookMs < withinMs, `${name}: ${tookMs.toFixed(0)} ms`)
  }

  await net.load(RULES.blocked)
  const blocked = await discover(CLOUD[0])
  t.strictSame(blocked.nat, { mapping: 'unknown', filtering: 'unknown', udp: 'blocked' }, 'UDP blocked')
  t.ok(blocked.tookMs < 3000, `UDP blocked: ${blocked.tookMs.toFixed(0)} ms`)

  await net.load(RULES.none)
  for (const address of [CLOUD[0], CLOUD[2]]) {
    const own: Discovery = await net.server.call('discover', address)
    t.strictSame(own.nat, { mapping: 'none', filtering: 'none', udp: 'open' }, `the server's own host, ${address}`)
  }

  for (const [rules, expected, withinMs] of [
    ['none', undefined, OPEN_MS],
    ['firewall', undefined, OPEN_MS],
    ['fullCone', false, FILTERED_MS],
    ['fullConeHairpin', true, OPEN_MS],
    ['portRestricted', false, FILTERED_MS],
    ['symmetric', false, FILTERED_MS],
    ['blocked', undefined, FILTERED_MS],
  ] as const) {
    await net.load(RULES[rules])
    const { hairpin, tookMs } = await net.client.call('hairpin', CLOUD[0])
    t.equal(hairpin, expected, `hairpin: ${rules}`)
    t.ok(tookMs < withinMs, `hairpin: ${rules}: ${tookMs.toFixed(0)} ms`)
  }

  await net.load(RULES.oneMapping)
  const mapped = await net.client.call('mapped', CLOUD[0], 7000)
  t.strictSame(mapped, { address: WAN, port: 41000, family: 4 }, 'the mapped address of a socket')

  await net.load(RULES.portRestricted)
  await net.server.call('stopServer')
  await net.server.call('startServer', CLOUD.slice(0, 1))
  const single = await discover(CLOUD[0])
  t.strictSame(single.nat, { mapping: 'unknown', filtering: 'unknown', udp: 'open' }, 'a server with one address')
  t.ok(single.tookMs < OPEN_MS, `a server with one address: ${single.tookMs.toFixed(0)} ms`)
})
