// Whose probes are answered, and which addresses are learned from them.

import { generateKeyPairSync, randomBytes } from 'node:crypto'
import t from 'tap'
import { linkLocalOf, ulaOf } from '../../gateway/addresses.ts'
import { insideOf } from '../../gateway/candidates.ts'
import { UNKNOWN_NAT } from '../../gateway/nat.ts'
import { runPaths } from '../../gateway/path-loop.ts'
import type { Peer } from '../../gateway/peers.ts'
import { encodeProbe, probeKey, publicKeyOf, usernameOf } from '../../gateway/probe.ts'
import { formatSocketAddress, parseSocketAddress, type SocketAddress } from '../../lib/address.ts'
import { createLog } from '../../lib/log.ts'
import { decodeStun, TRANSACTION_ID_BYTES } from '../../lib/wire/stun.ts'

const newKey = (): string =>
  generateKeyPairSync('x25519').privateKey.export({ type: 'pkcs8', format: 'der' }).subarray(-32).toString('base64')
const [own, other, stranger] = [newKey(), newKey(), newKey()]

const peer: Peer = {
  pool: 'bay',
  node: 'bay1',
  wireguardKey: publicKeyOf(other),
  linkLocal: linkLocalOf('bay1'),
  ula: ulaOf('bay1'),
  cidrs: ['10.244.1.0/24'],
  allowedIps: ['10.244.1.0/24'],
  standby: false,
  candidates: [],
  announcement: { node: 'bay1', sequence: 1, wireguardKey: publicKeyOf(other), candidates: [], nat: UNKNOWN_NAT },
}

t.test('a probe is answered, and its address learned, if it is a peer’s and from outside of the mesh', async (t) => {
  const ending = new AbortController()
  t.teardown(() => ending.abort())
  const sent: { readonly kind: string | undefined; readonly to: SocketAddress }[] = []
  const paths = runPaths(
    {
      privateKey: own,
      publicKey: publicKeyOf(own),
      probes: () => ({
        send: (datagram, to) => void sent.push({ kind: decodeStun(datagram)?.class, to }),
        malformed: () => 0,
      }),
      echoes: () => ({ send: () => {}, tellRole: () => {}, carried: () => 0 }),
      isInside: insideOf(['10.244.1.0/24', 'fd00:244:1::/64']),
      effects: { setEndpoint: async () => {}, move: () => {}, call: () => {}, ask: () => {}, suspect: () => {} },
      coldAfterMs: 60_000,
      isWarm: () => false,
      log: createLog('test', 'silent'),
    },
    ending.signal,
  )
  paths.setPeers([peer], () => undefined)
  const learned = () => paths.status(UNKNOWN_NAT, () => undefined)[0]!.candidates.map(({ address }) => address)

  for (const [name, from, key, answered] of [
    ['from the LAN', '192.168.1.9:5000', other, true],
    ['through a tunnel, from a pod’s address', '10.244.1.1:5000', other, false],
    ['through a tunnel, in IPv6', '[fd00:244:1::1]:5000', other, false],
    ['through a tunnel, from a gateway’s own address', '[fd66:756c:6d61:1::1]:5000', other, false],
    ['through a tunnel, from its device’s address', '[fe80::9]:5000', other, false],
    ['from the Internet', '[2001:db8::9]:5000', other, true],
    ['from a stranger', '192.168.1.10:5000', stranger, false],
  ] as const) {
    sent.length = 0
    // A stranger may know who the peer is, and not its key.
    const datagram = encodeProbe(
      randomBytes(TRANSACTION_ID_BYTES),
      usernameOf(publicKeyOf(other)),
      probeKey(key, publicKeyOf(own)),
    )
    paths.onStun(decodeStun(datagram)!, datagram, parseSocketAddress(from)!)
    const answers = sent.filter(({ kind }) => kind === 'success').map(({ to }) => formatSocketAddress(to))
    t.strictSame(answers, answered ? [from] : [], name)
    t.equal(learned().includes(from), answered, `${name}: ${answered ? '' : 'not '}learned`)
  }
})
