import t from 'tap'
import { spawn } from 'node:child_process'
import { accessSync, constants } from 'node:fs'
import { once } from 'node:events'
import { isRoot, until } from '../lib/netns.ts'
import { CLOUD, createNatNet, RULES } from './nat-net.ts'
import type { Discovery } from './nat-remote.ts'

// Independent programs and ours must agree: coturn's clients and Debian's `stun` (RFC 3489) against our server, our
// client against coturn's server.

const missing = (program: string, name: string): string | false => {
  for (const folder of ['/usr/bin', '/usr/local/bin']) {
    try {
      accessSync(`${folder}/${program}`, constants.X_OK)
      return false
    } catch {}
  }
  return `${program} is not installed: apt-get install ${name}`
}

t.test('interop', { skip: isRoot ? false : 'needs root for network namespaces' }, async (t) => {
  const net = await createNatNet()
  t.teardown(net.close)
  await net.server.call('startServer', CLOUD)

  await t.test('turnutils_stunclient', { skip: missing('turnutils_stunclient', 'coturn') }, async (t) => {
    await net.load(RULES.none)
    for (const [server, address] of [
      [CLOUD[0], '192.168.1.2'],
      [CLOUD[2], '2001:db8:2::2'],
    ] as const) {
      const output = await net.site.sh(`turnutils_stunclient ${server}`)
      const reflexive = output.match(/UDP reflexive addr: (.+):\d+$/gm) ?? []
      t.equal(reflexive.length, 3, `${server}: all three tests are answered`)
      t.ok(
        reflexive.every((line) => line.includes(`addr: ${address}:`)),
        `${server}: with our address`,
      )
    }
  })

  await t.test('turnutils_natdiscovery', { skip: missing('turnutils_natdiscovery', 'coturn') }, async (t) => {
    for (const [rules, mapping, filtering] of [
      ['fullCone', 'Endpoint Independent', 'Endpoint Independent'],
      ['restricted', 'Endpoint Independent', 'Address Dependent'],
      ['symmetric', 'Address and Port Dependent', 'Address and Port Dependent'],
    ] as const) {
      await net.load(RULES[rules])
      const output = await net.site.sh(`turnutils_natdiscovery -m -f ${CLOUD[0]} 2>&1`)
      t.match(output, `NAT with ${mapping} Mapping!`, rules)
      t.match(output, `NAT with ${filtering} Filtering!`, rules)
      t.notMatch(output, 'Not received mapped address', rules)
    }
  })

  await t.test('stun', { skip: missing('stun', 'stun-client') }, async (t) => {
    for (const [rules, verdict] of [
      ['none', 'Open'],
      ['fullCone', 'Independent Mapping, Independent Filter'],
      ['restricted', 'Independent Mapping, Address Dependent Filter'],
      ['portRestricted', 'Independent Mapping, Port Dependent Filter'],
      ['symmetric', 'Dependent Mapping'],
    ] as const) {
      await net.load(RULES[rules])
      const output = await net.site.sh(`stun ${CLOUD[0]} 2>&1 || true`)
      t.match(output, `Primary: ${verdict}`, rules)
    }
  })

  await t.test('turnserver', { skip: missing('turnserver', 'coturn') }, async (t) => {
    await net.server.call('stopServer')
    const words = ['-n', '--stun-only', '--no-tls', '--no-dtls', '--no-cli', '--log-file', 'stdout', '--no-stdout-log']
    const listen = [
      ...CLOUD.flatMap((address) => ['-L', address]),
      '--alt-listening-port',
      '3479',
      '--pidfile',
      '/dev/null',
    ]
    const enter = ['--target', String(net.cloud.pid), '--net', '--mount', 'turnserver']
    const turn = spawn('nsenter', [...enter, ...words, ...listen], { stdio: 'ignore' })
    t.teardown(async () => {
      const ended = once(turn, 'exit')
      turn.kill('SIGKILL')
      await ended
    })
    await net.load(RULES.none)
    const discover = (address: string): Promise<Discovery> => net.client.call('discover', address)
    await until('coturn answers', 5000, async () => (await net.client.call('mapped', CLOUD[0], 7001)) !== undefined)
    for (const [rules, address, mapping, filtering] of [
      ['none', CLOUD[0], 'none', 'none'],
      ['none', CLOUD[2], 'none', 'none'],
      ['fullCone', CLOUD[0], 'endpoint-independent', 'endpoint-independent'],
      ['restricted', CLOUD[0], 'endpoint-independent', 'address-dependent'],
      ['symmetric', CLOUD[0], 'address-and-port-dependent', 'address-and-port-dependent'],
    ] as const) {
      await net.load(RULES[rules])
      t.strictSame((await discover(address)).nat, { mapping, filtering, udp: 'open' }, `${rules}, ${address}`)
    }
  })
})
