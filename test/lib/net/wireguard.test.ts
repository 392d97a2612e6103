import t from 'tap'
import { parseDump, parseDumps, peerWords } from '../../../lib/net/wireguard.ts'

t.test('wg show dump', (t) => {
  const key = 'Om2lRlZz0RJ+mN9US1L2YXFAZkOT2uF8/Xuhkwz+pkA='
  const rows: readonly [string, string, object][] = [
    ['a new device', '(none)\t(none)\t0\toff\n', { privateKey: undefined, port: 0, mark: 0, peers: [] }],
    [
      'two peers, one never seen',
      `SB1v=\t${key}\t5001\t0x46000000\n` +
        `B=\t(none)\t[2001:db8::2]:5001\t10.244.2.0/24,fd00:244:2::/64\t1700000000\t148\t92\t25\n` +
        `C=\t(none)\t(none)\t(none)\t0\t0\t0\toff\n`,
      {
        privateKey: 'SB1v=',
        port: 5001,
        mark: 0x46000000,
        peers: [
          {
            publicKey: 'B=',
            endpoint: '[2001:db8::2]:5001',
            allowedIps: ['10.244.2.0/24', 'fd00:244:2::/64'],
            latestHandshake: 1_700_000_000_000,
            rx: 148,
            tx: 92,
            keepaliveSeconds: 25,
          },
          {
            publicKey: 'C=',
            endpoint: undefined,
            allowedIps: [],
            latestHandshake: undefined,
            rx: 0,
            tx: 0,
            keepaliveSeconds: 0,
          },
        ],
      },
    ],
  ]
  for (const [name, text, expected] of rows) t.same(parseDump(text), expected, name)
  t.end()
})

t.test('words of wg set', (t) => {
  t.equal(peerWords({ kind: 'remove', publicKey: 'B=' }).join(' '), 'peer B= remove')
  t.equal(peerWords({ kind: 'set', publicKey: 'B=' }).join(' '), 'peer B=')
  t.equal(
    peerWords({
      kind: 'set',
      publicKey: 'B=',
      allowedIps: ['10.0.0.0/8', '::/0'],
      endpoint: '[::1]:5',
      keepaliveSeconds: 0,
    }).join(' '),
    'peer B= allowed-ips 10.0.0.0/8,::/0 endpoint [::1]:5 persistent-keepalive 0',
  )
  t.same(peerWords({ kind: 'set', publicKey: 'B=', allowedIps: [] }), ['peer', 'B=', 'allowed-ips', ''], 'none at all')
  t.end()
})

t.test('a dump of all devices is one of each', async (t) => {
  const peer = ['k', '(none)', '192.0.2.1:5', '10.0.0.0/8', '0', '5', '6', 'off']
  const rows = [
    ['fm-direct', 'private', 'public', '1', 'off'],
    ['fm-direct', ...peer],
    ['fm-tcp', 'private', 'public', '2', '0x46'],
  ]
  const dumps = parseDumps(rows.map((row) => `${row.join('\t')}\n`).join(''))
  t.same([...dumps.keys()], ['fm-direct', 'fm-tcp'])
  t.same(dumps.get('fm-direct'), parseDump(`private\tpublic\t1\toff\n${peer.join('\t')}\n`))
  t.match(dumps.get('fm-tcp'), { port: 2, mark: 0x46, peers: [] })
  t.equal(parseDumps('').size, 0, 'no device at all')
})
