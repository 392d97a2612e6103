import t, { type Test } from 'tap'
import {
  addressesDiagnosis,
  certificateDiagnosis,
  clockDiagnosis,
  filterDiagnosis,
  kernelDiagnosis,
  mtuDiagnosis,
  prefixesDiagnosis,
  relayDiagnosis,
  renderDoctor,
  rulesDiagnosis,
  stateDiagnosis,
  stunDiagnosis,
  type CertificateFacts,
  type Diagnosis,
} from '../../lib/doctor.ts'

const NOW = Date.parse('2026-03-01T12:00:00Z')
const HOUR_MS = 3_600_000
const DAY_MS = 24 * HOUR_MS

type Row = readonly [name: string, diagnosis: Diagnosis, verdict: Diagnosis['verdict'], found: RegExp, remedy?: RegExp]
const judge = (rows: readonly Row[]) => (t: Test) => {
  for (const [name, diagnosis, verdict, found, remedy] of rows) {
    t.equal(diagnosis.verdict, verdict, `${name}: ${diagnosis.found}`)
    t.match(diagnosis.found, found)
    if (verdict === 'fine') t.equal(diagnosis.remedy, undefined)
    else t.match(diagnosis.remedy, remedy ?? /./)
    t.ok(diagnosis.why.length > 10)
  }
  t.end()
}

t.test(
  'kernel',
  judge([
    ['Debian 12', kernelDiagnosis('6.1.0-31-amd64'), 'fine', /6\.1/],
    ['just enough', kernelDiagnosis('5.13.0'), 'fine', /5\.13/],
    ['too old', kernelDiagnosis('5.10.0-28-amd64'), 'wrong', /5\.10/, /5\.13 or later/],
    ['far too old', kernelDiagnosis('4.19.0'), 'wrong', /4\.19/],
  ]),
)

const rule = (priority: number, table: number, mark = 0) => ({ priority, table, mark })
t.test(
  'routing rules',
  judge([
    [
      'ours alone',
      rulesDiagnosis([rule(0, 255), rule(5100, 7078), rule(5101, 7077), rule(32766, 254)], 5100),
      'fine',
      /^none/,
    ],
    [
      'others’',
      rulesDiagnosis([rule(9, 2004, 0x200), rule(9, 2004, 0x200)], 5100),
      'fine',
      /^before ours 9 \(table 2004\)$/,
    ],
    [
      'Raven’s',
      rulesDiagnosis([rule(0, 255), rule(100, 9027, 0x40)], 5100),
      'note',
      /^rule 100 is Raven’s/,
      /ip rule del pref 100/,
    ],
    ['of that number, but not Raven’s', rulesDiagnosis([rule(100, 100)], 5100), 'fine', /100 \(table 100\)/],
  ]),
)

const mtus = (text: string) =>
  text
    .split(' ')
    .flatMap((each) => (each === '' ? [] : [{ name: each.split('=')[0]!, mtu: Number(each.split('=')[1]) }]))
t.test(
  'MTU',
  judge([
    [
      'Ethernet',
      mtuDiagnosis(mtus('fm-direct=1380 fm-udp=1380'), mtus('eth0=1500')),
      'fine',
      /fm-direct 1380.* eth0 1500/,
    ],
    ['just enough', mtuDiagnosis(mtus('fm-direct=1380'), mtus('ppp0=1440')), 'fine', /ppp0 1440/],
    ['before the first start', mtuDiagnosis([], []), 'fine', /no device/],
    [
      'a mobile network',
      mtuDiagnosis(mtus('fm-direct=1380'), mtus('wwan0=1400')),
      'note',
      /wwan0 1400: .*1280/,
      /wwan0 to 1440/,
    ],
    [
      'a tunnel in a tunnel',
      mtuDiagnosis(mtus('fm-direct=1380'), mtus('eth0=1500 tun0=1300')),
      'wrong',
      /^tun0 1300: less than the 1340/,
      /tun0/,
    ],
    [
      'somebody else’s hand',
      mtuDiagnosis(mtus('fm-direct=9000 fm-udp=1380'), mtus('eth0=9000')),
      'wrong',
      /^fm-direct 9000, and must be 1380/,
      /ip link set fm-direct mtu 1380/,
    ],
  ]),
)

t.test(
  'reverse-path filter: the greater of the two counts',
  judge([
    ['ours are loose', filterDiagnosis(1, [{ name: 'fm-direct', filter: 2 }]), 'fine', /fm-direct/],
    ['all are loose', filterDiagnosis(2, [{ name: 'fm-direct', filter: 1 }]), 'fine', /fm-direct/],
    ['off', filterDiagnosis(0, [{ name: 'fm-direct', filter: 0 }]), 'fine', /fm-direct/],
    [
      'set back',
      filterDiagnosis(0, [
        { name: 'fm-direct', filter: 1 },
        { name: 'fm-tcp', filter: 2 },
      ]),
      'wrong',
      /strict for fm-direct$/,
      /sysctl\.d/,
    ],
    ['off here and strict for all', filterDiagnosis(1, [{ name: 'fm-udp', filter: 0 }]), 'wrong', /strict for fm-udp/],
    ['no device yet', filterDiagnosis(1, []), 'fine', /no device of ours yet/],
  ]),
)

const certificate = (rest: Partial<CertificateFacts>): Diagnosis =>
  certificateDiagnosis(
    {
      name: 'this node',
      subject: 'system:node:h1',
      wanted: 'system:node:h1',
      fromMs: NOW - 10 * DAY_MS,
      untilMs: NOW + 80 * DAY_MS,
      matchesKey: true,
      matchesCa: true,
      ...rest,
    },
    NOW,
    'join again',
  )
t.test(
  'certificates',
  judge([
    ['young', certificate({}), 'fine', /system:node:h1, until 2026-05-20 12:00/],
    ['old', certificate({ fromMs: NOW - 89 * DAY_MS, untilMs: NOW + DAY_MS }), 'note', /in 1d00h/, /join again/],
    ['ended', certificate({ untilMs: NOW - HOUR_MS }), 'wrong', /ended 1h00m ago/, /join again/],
    [
      'of a clock in 1970',
      certificate({ fromMs: NOW + 56 * 365 * DAY_MS }),
      'wrong',
      /has not reached/,
      /set the clock/,
    ],
    [
      'of another node',
      certificate({ subject: 'system:node:h2' }),
      'wrong',
      /of system:node:h2, and should be of system:node:h1/,
    ],
    ['of another key', certificate({ matchesKey: false }), 'wrong', /not of the key/],
    ['of another CA', certificate({ matchesCa: false }), 'wrong', /another CA/],
  ]),
)

t.test(
  'clock',
  judge([
    ['the same', clockDiagnosis(400, NOW), 'fine', /0\.4s behind the relay/],
    ['slow', clockDiagnosis(30_000, NOW), 'note', /30s behind/, /NTP/],
    ['far ahead', clockDiagnosis(-2 * HOUR_MS, NOW), 'wrong', /2h00m ahead of/, /NTP/],
    ['alone', clockDiagnosis(undefined, NOW), 'note', /no relay to compare with/],
  ]),
)

const state = (mib: number, files?: number, isWritable = true): Diagnosis =>
  stateDiagnosis('/s', isWritable, { bytes: mib * (1 << 20), files })
t.test(
  'state folder',
  judge([
    ['room', state(400, 9_000), 'fine', /^400 MiB free$/],
    ['without a bound of files', state(16), 'fine', /^16 MiB free$/],
    ['little', state(15), 'note', /^15 MiB free$/, /df -h \/s/],
    ['full', state(0, 9_000), 'wrong', /^0 MiB free$/, /--state-dir/],
    ['no more files', state(400, 0), 'wrong', /^0 files free$/, /df -i \/s/],
    ['read-only', state(400, 9_000, false), 'wrong', /cannot be written/, /remount,rw/],
  ]),
)

const url = 'https://203.0.113.10:443'
const fails = (code: string, message = 'why'): Diagnosis => relayDiagnosis({ kind: 'fails', url, code, message })
t.test(
  'relays',
  judge([
    ['answers', relayDiagnosis({ kind: 'answers', url, rttMs: 21.4 }), 'fine', /21\.4 ms/],
    ['nothing listens', fails('ECONNREFUSED'), 'wrong', /why/, /--listen/],
    ['a firewall drops', fails('ETIMEDOUT'), 'wrong', /why/, /let TCP/],
    ['a link is down', fails('ENETUNREACH'), 'wrong', /why/, /link is up .*ip route/],
    ['no router', fails('EHOSTUNREACH'), 'wrong', /why/, /ip neigh/],
    ['no name', fails('ENOTFOUND'), 'wrong', /why/, /DNS/],
    ['another name', fails('ERR_TLS_CERT_ALTNAME_INVALID'), 'wrong', /why/, /--public/],
    ['ended', fails('CERT_HAS_EXPIRED'), 'wrong', /why/, /clocks/],
    ['somebody opens TLS', fails('SELF_SIGNED_CERT_IN_CHAIN'), 'wrong', /why/, /another CA answers/],
    ['something else', fails('EPROTO'), 'wrong', /why/, /log of the relay/],
  ]),
)

const stun = (...mapped: readonly (string | undefined)[]): Diagnosis =>
  stunDiagnosis(mapped.map((each, index) => ({ server: `203.0.113.${index}:3478`, mapped: each, rttMs: 20 })))
t.test(
  'UDP',
  judge([
    ['seen', stun('198.51.100.1:4000', '198.51.100.1:4000'), 'fine', /^seen as 198\.51\.100\.1:4000, in 20\.0 ms$/],
    [
      'one is silent',
      stun('198.51.100.1:4000', undefined),
      'note',
      /no answer from 203\.0\.113\.1:3478/,
      /let UDP .* to 203\.0\.113\.1:3478 pass/,
    ],
    ['all are', stun(undefined), 'note', /^no answer from 203\.0\.113\.0:3478/],
    ['none is known', stun(), 'note', /no STUN server/, /--stun/],
  ]),
)

t.test(
  'prefixes',
  judge([
    ['none twice', prefixesDiagnosis(3, [])[0]!, 'fine', /of 3 pools, none twice/],
    ['twice', prefixesDiagnosis(3, ['10.244.1.0/24: of a and b'])[0]!, 'wrong', /of a and b/],
    ['a LAN of its own', addressesDiagnosis([])[0]!, 'fine', /none is in/],
    [
      'a LAN with another pool’s pods',
      addressesDiagnosis([{ device: 'eth0', address: '10.244.3.9', pool: 'sylt', prefix: '10.244.3.0/24' }])[0]!,
      'wrong',
      /10\.244\.3\.9 on eth0 is in 10\.244\.3\.0\/24 of pool sylt/,
    ],
  ]),
)

t.test('what is wrong comes first, with why and what to do', (t) => {
  const text = renderDoctor(
    [kernelDiagnosis('6.1.0'), clockDiagnosis(30_000, NOW), fails('ECONNREFUSED', 'connect ECONNREFUSED')],
    80,
  )
  t.equal(
    text,
    `wrong  relay https://203.0.113.10:443: connect ECONNREFUSED
       why: signalling, kubectl and the way of last resort for packets go there
            by TLS
       do: nothing listens there: see whether fulmar relay runs and on which
           port (--listen)
note   clock: 2026-03-01T12:00:00Z here, 30s behind the relay
       why: certificates and tokens are valid from one time to another
       do: set the clock, and keep it by NTP (timedatectl set-ntp true, or
           chrony)
fine   kernel: 6.1.0
1 wrong, 1 to know, 1 fine
`,
  )
  t.end()
})
