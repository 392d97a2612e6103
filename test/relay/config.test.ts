import t from 'tap'
import { parseOptions } from '../../lib/config.ts'
import { OPTIONS } from '../../relay/config.ts'
import { advertised } from '../../relay/status.ts'

t.test('the flags of a relay', async (t) => {
  const parsed = parseOptions(
    OPTIONS,
    [
      '--public',
      '203.0.113.10,2001:db8:1::10,relay.example.com',
      '--stun',
      '203.0.113.10,203.0.113.11',
      '--listen',
      '0.0.0.0:8443,[::]:8443',
    ],
    {},
  )
  if (parsed.kind !== 'ok') return t.fail(JSON.stringify(parsed))
  t.match(parsed.values, {
    listen: [
      { address: '0.0.0.0', port: 8443 },
      { address: '::', port: 8443 },
    ],
    stunPorts: [3478, 3479],
    udpRelayPorts: { first: 40000, last: 49999 },
    metrics: { address: '127.0.0.1', port: 9472 },
    stateDir: '/var/lib/fulmar',
    manifests: undefined,
  })
  t.same(advertised(parsed.values), {
    relays: ['https://203.0.113.10:8443', 'https://[2001:db8:1::10]:8443', 'https://relay.example.com:8443'],
    stun: ['203.0.113.10:3478', '203.0.113.11:3478'],
  })
  t.same(
    advertised({ ...parsed.values, stun: ['0.0.0.0', '::'] }).stun,
    ['203.0.113.10:3478', '[2001:db8:1::10]:3478'],
    'who listens on any address is found at the public ones',
  )
})

t.test('every mistake is told at once', async (t) => {
  const argv = [
    '--listen',
    '443',
    '--stun',
    'here',
    '--stun-ports',
    '1,1',
    '--metrics',
    '9472',
    '--log-level',
    'loud',
    '--what',
  ]
  const parsed = parseOptions(OPTIONS, argv, {})
  if (parsed.kind !== 'invalid') return t.fail(parsed.kind)
  const expected = [
    /--what: no such flag/,
    /--listen "443": /,
    /--public: is required/,
    /--stun "here": /,
    /--stun-ports "1,1": /,
    /--metrics /,
    /--log-level /,
  ]
  t.equal(parsed.errors.length, expected.length, parsed.errors.join('\n'))
  for (const [i, pattern] of expected.entries()) t.match(parsed.errors[i], pattern)
})

t.test('ports for sessions over UDP', async (t) => {
  const read = (value: string) => parseOptions(OPTIONS, ['--public', '203.0.113.10', '--udp-relay-ports', value], {})
  for (const [value, expected] of [
    ['50000-50003', { first: 50000, last: 50003 }],
    ['', undefined],
  ] as const)
    t.match(read(value), { kind: 'ok', values: { udpRelayPorts: expected } }, `'${value}'`)
  for (const value of ['50000', '50000-50002', '50003-50000', '80-90', '65000-66000', 'a-b'])
    t.equal(read(value).kind, 'invalid', value)
})
