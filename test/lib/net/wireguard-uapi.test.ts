import t from 'tap'
import { deviceLines, getDevice, parseGet, peerLines, setPeers } from '../../../lib/net/wireguard-uapi.ts'

const [A, B] = [Buffer.alloc(32, 1), Buffer.alloc(32, 2)]

t.test('a device and its peers', async (t) => {
  t.strictSame(parseGet(`private_key=${'0'.repeat(64)}\nerrno=0\n\n`), {
    privateKey: undefined,
    port: 0,
    mark: 0,
    peers: [],
  })
  const text = [
    `private_key=${A.toString('hex')}`,
    'listen_port=5001',
    'fwmark=1174405120',
    `public_key=${B.toString('hex')}`,
    `preshared_key=${'0'.repeat(64)}`,
    'protocol_version=1',
    'endpoint=[2001:db8::2]:5001',
    'last_handshake_time_sec=1700000000',
    'last_handshake_time_nsec=5',
    'tx_bytes=92',
    'rx_bytes=148',
    'persistent_keepalive_interval=25',
    'allowed_ip=10.244.2.0/24',
    'allowed_ip=fd00:244:2::/64',
    `public_key=${A.toString('hex')}`,
    'last_handshake_time_sec=0',
    'errno=0',
  ]
  t.strictSame(parseGet(`${text.join('\n')}\n\n`), {
    privateKey: A.toString('base64'),
    port: 5001,
    mark: 0x46000000,
    peers: [
      {
        publicKey: B.toString('base64'),
        endpoint: '[2001:db8::2]:5001',
        allowedIps: ['10.244.2.0/24', 'fd00:244:2::/64'],
        latestHandshake: 1_700_000_000_000,
        rx: 148,
        tx: 92,
        keepaliveSeconds: 25,
      },
      {
        publicKey: A.toString('base64'),
        endpoint: undefined,
        allowedIps: [],
        latestHandshake: undefined,
        rx: 0,
        tx: 0,
        keepaliveSeconds: 0,
      },
    ],
  })
})

t.test('changes of peers', async (t) => {
  const [publicKey, hex] = [A.toString('base64'), A.toString('hex')]
  t.equal(peerLines({ kind: 'remove', publicKey }), `public_key=${hex}\nremove=true\n`)
  t.equal(peerLines({ kind: 'set', publicKey }), `public_key=${hex}\n`)
  t.equal(
    peerLines({ kind: 'set', publicKey, allowedIps: ['10.0.0.0/8'], endpoint: '192.0.2.1:9', keepaliveSeconds: 0 }),
    `public_key=${hex}\nreplace_allowed_ips=true\nallowed_ip=10.0.0.0/8\nendpoint=192.0.2.1:9\npersistent_keepalive_interval=0\n`,
  )
})

t.test('settings of a device', async (t) => {
  t.equal(deviceLines({}), '')
  t.equal(
    deviceLines({ privateKey: A.toString('base64'), port: 5001, mark: 0x46000000 }),
    `private_key=${A.toString('hex')}\nlisten_port=5001\nfwmark=1174405120\n`,
  )
})

t.test('a device that no wireguard-go serves', async (t) => {
  t.equal(await getDevice('fm-none'), undefined)
  t.equal(await setPeers('fm-none', []), false)
})
