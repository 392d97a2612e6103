import { existsSync } from 'node:fs'
import t from 'tap'
import {
  announce,
  missing,
  packagesFor,
  report,
  REQUIREMENTS,
  requirementsOf,
  type Finding,
} from '../../lib/preflight.ts'

/** Findings of the lab's requirements where those named have the given problem. */
const findings = (problems: Readonly<Record<string, string>>): readonly Finding[] =>
  requirementsOf('lab').map((requirement) => ({ requirement, problem: problems[requirement.name] }))

t.test('a host that has everything', async (t) => {
  t.same(missing(findings({})), [])
  t.equal(report(findings({})), '')
  t.same(packagesFor(findings({})), [])
})

t.test('a host that lacks programs and a device', async (t) => {
  const found = findings({
    'wireguard-go': 'is not installed',
    WireGuard: 'neither the module for this kernel nor wireguard-go is there',
    '/dev/net/tun': 'cannot be opened: ENOENT',
  })
  t.same(packagesFor(found), ['wireguard-go'], 'each package once; a device has none')
  t.equal(
    announce(found),
    '  wireguard-go       wireguard-go: is WireGuard where the kernel has no module, and in the lab\n',
  )
  t.equal(
    report(found),
    `  wireguard-go: is not installed
    why: is WireGuard where the kernel has no module, and in the lab
    remedy: install wireguard-go (Debian package wireguard-go) and see that it is in PATH
  WireGuard: neither the module for this kernel nor wireguard-go is there
    why: the tunnels between pools are WireGuard, by the kernel’s module or wireguard-go
    remedy: modprobe wireguard, or install wireguard-go
  /dev/net/tun: cannot be opened: ENOENT
    why: wireguard-go and the lab’s slow links are TUN devices
    remedy: modprobe tun; in a container pass the device in (docker run --device /dev/net/tun)
`,
  )
})

t.test('who needs what', async (t) => {
  const names = (needer: Parameters<typeof requirementsOf>[0]): readonly string[] =>
    requirementsOf(needer).map(({ name }) => name)
  t.same(names('relay'), ['nft', 'conntrack', 'setpriv'])
  t.ok(names('gateway').includes('WireGuard'))
  t.notOk(names('gateway').includes('wireguard-go'), 'the kernel’s module will do')
  t.notOk(names('agent').includes('kubectl'))
  t.same(names('tests'), ['miniupnpd', 'faketime', 'dig'])
  t.notOk(names('lab').includes('miniupnpd'), 'the demo does without')
  t.equal(new Set(REQUIREMENTS.map(({ name }) => name)).size, REQUIREMENTS.length, 'names are unique')
})

t.test('benches that need something are there', async (t) => {
  const questions = new Set(REQUIREMENTS.flatMap(({ needers }) => needers.filter((each) => each.startsWith('bench:'))))
  for (const question of questions) t.ok(existsSync(`bench/${question.slice('bench:'.length)}.ts`), question)
  t.strictSame(
    requirementsOf('bench:ops-throughput').map(({ name }) => name),
    ['haproxy'],
  )
})
