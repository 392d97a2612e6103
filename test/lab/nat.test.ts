import { setTimeout as sleep } from 'node:timers/promises'
import t from 'tap'
import { createNatNet, CLOUD, WAN } from '../gateway/nat-net.ts'
import { isRoot } from '../lib/netns.ts'
import { natsOf, parseNatName, routerRules, type NatName } from './nat.ts'

t.test('names of NATs', async (t) => {
  const SEED = 0x1234
  const rows: readonly (readonly [string, object])[] = [
    ['symmetric', [{ type: 'symmetric', seed: SEED, expireSeconds: undefined }]],
    ['symmetric-hash/seed=7', [{ type: 'symmetric-hash', seed: 7, expireSeconds: undefined }]],
    ['address-dependent/expire=4s/seed=9', [{ type: 'address-dependent', seed: 9, expireSeconds: 4 }]],
    ['port-restricted/expire=4', [{ type: 'port-restricted', seed: SEED, expireSeconds: 4 }]],
    [
      'port-restricted/expire=4s+symmetric-sequential/seed=1',
      [
        { type: 'port-restricted', seed: SEED, expireSeconds: 4 },
        { type: 'symmetric-sequential', seed: 1, expireSeconds: undefined },
      ],
    ],
    [
      'double',
      [
        { type: 'port-restricted', seed: SEED, expireSeconds: undefined },
        { type: 'port-restricted', seed: SEED, expireSeconds: undefined },
      ],
    ],
  ]
  for (const [text, nats] of rows) t.strictSame(natsOf(parseNatName(text)), nats, text)

  const wrong: readonly (readonly [string, RegExp])[] = [
    ['cone', /"cone" is no NAT type: full-cone, restricted, .*double/],
    ['', /"" is no NAT type/],
    ['symmetric/seed=7', /symmetric has no seed; port-not-preserved, address-dependent/],
    ['symmetric-hash/seed=x', /"seed=x" is no parameter of a NAT: seed=NUMBER or expire=SECONDS/],
    ['symmetric-hash/seed=4294967296', /seed=4294967296: is over 2147483647/],
    ['symmetric/lifetime=4', /"lifetime=4" is no parameter/],
    ['full-cone/expire=0s', /expire=0: is not 1 to 3600 seconds/],
    ['udp-blocked/expire=4s', /udp-blocked has no mapping that could expire/],
    ['full-cone+none', /none is no NAT/],
    ['full-cone+full-cone+full-cone', /3 NATs in a row; there may be two/],
  ]
  for (const [text, message] of wrong) t.throws(() => parseNatName(text), message, text)
})

t.test(
  'what seeds, counting and expiry do',
  { skip: isRoot ? false : 'needs root for network namespaces' },
  async (t) => {
    const net = await createNatNet()
    t.teardown(net.close)
    await net.server.call('startServer', CLOUD)
    const load = (name: NatName) => net.load(routerRules(natsOf(name)[0], WAN))
    const portOf = async (fromPort: number): Promise<number> =>
      ((await net.client.call('mapped', CLOUD[0], fromPort)) as { port: number }).port
    const portsWith = async (name: NatName, ...fromPorts: readonly number[]): Promise<readonly number[]> => {
      await load(name)
      const ports: number[] = []
      for (const port of fromPorts) ports.push(await portOf(port))
      return ports
    }
    for (const type of ['port-not-preserved', 'address-dependent', 'symmetric-hash'] as const) {
      const [one, again, other] = [
        await portsWith(`${type}/seed=1`, 7000, 7001),
        await portsWith(`${type}/seed=1`, 7000, 7001),
        await portsWith(`${type}/seed=2`, 7000, 7001),
      ]
      t.strictSame(again, one, `${type}: a seed gives the same ports again`)
      t.notSame(other, one, `${type}: another seed gives others`)
      t.notSame(one, [7000, 7001], `${type}: no port is kept`)
    }
    t.strictSame(
      await portsWith('symmetric-sequential/seed=998', 7000, 7001, 7002),
      [30_998, 30_999, 30_000],
      'in turn',
    )

    t.strictSame(
      await portsWith('symmetric-sequential/expire=1s/seed=0', 7000, 7000),
      [30_000, 30_000],
      'a mapping that is in use stays',
    )
    await sleep(1_500)
    t.equal(await portOf(7000), 30_001, 'and is gone after its time')

    t.strictSame(await portsWith('first-packet-race', 7000), [7000], 'who sends first keeps its port')
    await net.server.call('stopServer')
    for (const [type, port] of [
      ['first-packet-race', 'lost'],
      ['port-restricted', 'kept'],
    ] as const) {
      await load(type)
      await net.cloud.sh(`${process.execPath} -e "${KNOCK}"`)
      await net.server.call('startServer', CLOUD)
      t.equal((await portOf(7001)) === 7001 ? 'kept' : 'lost', port, `${type}: the port, after a packet from outside`)
      await net.server.call('stopServer')
    }
  },
)

/** From the STUN server's port to one that nothing is mapped to yet. */
const KNOCK = `
const socket = require('dgram').createSocket('udp4')
socket.bind(3478, '${CLOUD[0]}', () => socket.send('hello', 7001, '${WAN}', () => socket.close()))`
