import t, { type Test } from 'tap'
import { execFile, spawn } from 'node:child_process'
import { accessSync, constants } from 'node:fs'
import { once } from 'node:events'
import { promisify } from 'node:util'
import { isRoot, until } from '../lib/netns.ts'
import { CLOUD, createNatNet, expiring, RULES } from './nat-net.ts'
import type { Discovery } from './nat-remote.ts'

// Independent programs and ours must agree: the clients of coturn, Debian's `stun` and node-stun (both RFC 3489) against our
// server, our client against the servers of coturn and node-stun.

t.setTimeout(180_000)

const missing = (program: string, remedy: string): string | false => {
  for (const folder of (process.env['PATH'] ?? '').split(':')) {
    try {
      accessSync(`${folder}/${program}`, constants.X_OK)
      return false
    } catch {}
  }
  return `${program} is not installed: ${remedy}`
}
const COTURN = 'apt-get install coturn'
const NODE_STUN = 'npm install --global node-stun'

t.test('interop', { skip: isRoot ? false : 'needs root for network namespaces' }, async (t) => {
  const net = await createNatNet()
  t.teardown(net.close)
  await net.server.call('startServer', CLOUD)

  await t.test('turnutils_stunclient', { skip: missing('turnutils_stunclient', COTURN) }, async (t) => {
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

  await t.test('turnutils_natdiscovery', { skip: missing('turnutils_natdiscovery', COTURN) }, async (t) => {
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
    await net.load(expiring(RULES.portRestricted, 3, 4))
    for (const [seconds, answers] of [
      [2, 2],
      [6, 1],
    ] as const) {
      const output = await net.site.sh(`turnutils_natdiscovery -t -T ${seconds} ${CLOUD[0]} 2>&1 || true`)
      t.equal(output.match(/UDP reflexive addr/g)?.length, answers, `a mapping of 3 s that is idle for ${seconds} s`)
    }
    for (const [rules, hairpins] of [
      ['fullCone', false],
      ['fullConeHairpin', true],
    ] as const) {
      await net.load(RULES[rules])
      const output = await net.site.sh(`turnutils_natdiscovery -H ${CLOUD[0]} 2>&1 || true`)
      t.equal(output.includes('successful hairpinning'), hairpins, `hairpin: ${rules}`)
    }
  })

  await t.test('stun', { skip: missing('stun', 'apt-get install stun-client') }, async (t) => {
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

  await t.test('node-stun-client', { skip: missing('node-stun-client', NODE_STUN) }, async (t) => {
    for (const [rules, verdict] of [
      ['none', 'Open NB=I EF=I'],
      ['fullCone', 'Natted NB=I EF=I'],
      ['restricted', 'Natted NB=I EF=AD'],
      ['portRestricted', 'Natted NB=I EF=APD'],
      ['symmetric', 'Natted NB=APD EF=APD'],
    ] as const) {
      await net.load(RULES[rules])
      // It believes in silence after 9.5 s.
      const enter = ['--target', String(net.site.pid), '--net', '--mount']
      const { stdout } = await promisify(execFile)('nsenter', [...enter, 'node-stun-client', '-s', CLOUD[0]])
      t.match(stdout, `Complete(0): ${verdict} `, rules)
    }
  })

  await net.server.call('stopServer')
  /** Runs a server in the cloud until the test is over; resolves when it answers. */
  const serve = async (t: Test, ...command: readonly string[]): Promise<void> => {
    const server = spawn('nsenter', ['--target', String(net.cloud.pid), '--net', '--mount', ...command], {
      stdio: 'ignore',
    })
    t.teardown(async () => {
      const ended = once(server, 'exit')
      server.kill('SIGKILL')
      await ended
    })
    await net.load(RULES.none)
    await until('it answers', 5000, async () => (await net.client.call('mapped', CLOUD[0], 7001)) !== undefined)
  }
  const agrees = async (t: Test, rows: readonly (readonly [keyof typeof RULES, string, string, string])[]) => {
    for (const [rules, address, mapping, filtering] of rows) {
      await net.load(RULES[rules])
      const { nat }: Discovery = await net.client.call('discover', address)
      t.strictSame(nat, { mapping, filtering, udp: 'open' }, `${rules}, ${address}`)
    }
  }
  const [EIM, ADM, APDM] = ['endpoint-independent', 'address-dependent', 'address-and-port-dependent']
  const IPV4 = [
    ['none', CLOUD[0], 'none', 'none'],
    ['fullCone', CLOUD[0], EIM, EIM],
    ['restricted', CLOUD[0], EIM, ADM],
    ['symmetric', CLOUD[0], APDM, APDM],
  ] as const
  const WAITS_MS = [1500, 3000, 5500, 6000]

  await t.test('turnserver', { skip: missing('turnserver', COTURN) }, async (t) => {
    const words = ['-n', '--stun-only', '--no-tls', '--no-dtls', '--no-cli', '--log-file', 'stdout', '--no-stdout-log']
    const listen = CLOUD.flatMap((address) => ['-L', address])
    await serve(t, 'turnserver', ...words, ...listen, '--alt-listening-port', '3479', '--pidfile', '/dev/null')
    await agrees(t, [...IPV4, ['none', CLOUD[2], 'none', 'none']])
    await net.load(expiring(RULES.portRestricted, 3, 4))
    t.strictSame(await net.client.call('lifetime', CLOUD[0], WAITS_MS), { livedMs: 3000, diedMs: 5500 }, 'lifetime')
  })

  await t.test('node-stun-server', { skip: missing('node-stun-server', NODE_STUN) }, async (t) => {
    const folder = t.testdir({
      'node-stun.ini': `[primary]\nhost = ${CLOUD[0]}\n[secondary]\nhost = ${CLOUD[1]}\n`,
    })
    await serve(t, 'sh', '-c', `cd '${folder}' && exec node-stun-server`)
    await agrees(t, IPV4)
    await net.load(expiring(RULES.portRestricted, 3, 4))
    t.equal(await net.client.call('lifetime', CLOUD[0], WAITS_MS), undefined, 'it knows no RESPONSE-PORT')
  })
})
