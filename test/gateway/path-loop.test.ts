// Whose probes are answered, and which addresses are learned from them.

import { generateKeyPairSync, randomBytes } from 'node:crypto'
import { setTimeout as sleep } from 'node:timers/promises'
import t, { type Test } from 'tap'
import { linkLocalOf, ulaOf } from '../../gateway/addresses.ts'
import { insideOf } from '../../gateway/candidates.ts'
import { UNKNOWN_NAT } from '../../gateway/nat.ts'
import { runPaths, type Paths } from '../../gateway/path-loop.ts'
import type { Peer } from '../../gateway/peers.ts'
import type { ProbeSocket } from '../../gateway/probe-client.ts'
import { encodeProbe, probeKey, publicKeyOf, usernameOf } from '../../gateway/probe.ts'
import { formatSocketAddress, parseSocketAddress, type SocketAddress } from '../../lib/address.ts'
import { createLog } from '../../lib/log.ts'
import { decodeStun, TRANSACTION_ID_BYTES } from '../../lib/wire/stun.ts'

const newKey = (): string =>
  generateKeyPairSync('x25519').privateKey.export({ type: 'pkcs8', format: 'der' }).subarray(-32).toString('base64')
const [own, other, stranger] = [newKey(), newKey(), newKey()]

/** The only node of its pool. */
const peerOf = (pool: string, wireguardKey: string): Peer => ({
  pool,
  node: `${pool}1`,
  wireguardKey,
  linkLocal: linkLocalOf(`${pool}1`),
  ula: ulaOf(`${pool}1`),
  cidrs: ['10.244.1.0/24'],
  allowedIps: ['10.244.1.0/24'],
  standby: false,
  candidates: [],
  announcement: { node: `${pool}1`, sequence: 1, wireguardKey, candidates: [], nat: UNKNOWN_NAT },
})

/** @param isWarm whether paths are kept up without traffic. */
function openPaths(t: Test, isWarm: boolean, sendProbe: ProbeSocket['send'], sendEcho: () => void): Paths {
  const ending = new AbortController()
  t.teardown(() => ending.abort())
  return runPaths(
    {
      privateKey: own,
      publicKey: publicKeyOf(own),
      probes: () => ({ send: sendProbe, malformed: () => 0 }),
      echoes: () => ({ send: sendEcho, tellRole: () => {}, carried: () => 0 }),
      isInside: insideOf(['10.244.1.0/24', 'fd00:244:1::/64']),
      effects: { setEndpoint: async () => {}, move: () => {}, call: () => {}, ask: () => {}, suspect: () => {} },
      coldAfterMs: 60_000,
      isWarm: () => isWarm,
      log: createLog('test', 'silent'),
    },
    ending.signal,
  )
}

t.test('a probe is answered, and its address learned, if it is a peer’s and from outside of the mesh', async (t) => {
  const sent: { readonly kind: string | undefined; readonly to: SocketAddress }[] = []
  const paths = openPaths(
    t,
    false,
    (datagram, to) => void sent.push({ kind: decodeStun(datagram)?.class, to }),
    () => undefined,
  )
  paths.setPeers([peerOf('bay', publicKeyOf(other))], () => undefined)
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

t.test('who comes late rests for as long, but for those that say something', async (t) => {
  let probes = 0
  const echoedMs: number[] = []
  const paths = openPaths(
    t,
    true,
    () => void probes++,
    () => void echoedMs.push(performance.now()),
  )
  const keys = [other, ...Array.from({ length: 7 }, newKey)]
  paths.setPeers(
    keys.map((key, i) => peerOf(`bay${i}-`, publicKeyOf(key))),
    () => 'direct',
  )
  await sleep(1_500)
  // Paths that are silent by now are due each 100 ms: we come late by 400 ms or more.
  const untilMs = performance.now() + 500
  while (performance.now() < untilMs);
  const freeMs = performance.now()
  await sleep(100)
  probes = 0
  const said = encodeProbe(
    randomBytes(TRANSACTION_ID_BYTES),
    usernameOf(publicKeyOf(other)),
    probeKey(other, publicKeyOf(own)),
  )
  paths.onStun(decodeStun(said)!, said, parseSocketAddress('198.51.100.1:5000')!)
  t.ok(probes > 0, 'who asks is answered meanwhile')
  await sleep(2_000)
  const stepMs = echoedMs.find((ms) => ms >= freeMs)!
  const echoed = (fromMs: number, toMs: number) =>
    echoedMs.filter((ms) => ms >= stepMs + fromMs && ms < stepMs + toMs).length
  t.ok(echoed(0, 50) >= keys.length, 'all that was due is done at once')
  // Only who asked may hear more of us.
  const [resting, after] = [echoed(50, 350), echoed(350, 1_500)]
  t.ok(resting < keys.length, `then it rests: ${resting} echoes`)
  t.ok(after >= keys.length, `then it goes on: ${after} echoes`)
})
