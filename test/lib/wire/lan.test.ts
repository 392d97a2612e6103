// Heartbeats on a pool's LAN, and everything that a stranger on that LAN may do to them.

import 'reflect-metadata'
import { createPrivateKey, randomBytes, X509Certificate } from 'node:crypto'
import t from 'tap'
import { createAuthority, createClient, validFor } from '../../../lib/certificates.ts'
import { Follower, LanPeers, type Heard } from '../../../lib/lan.ts'
import { decodeLan, encodeHeartbeat, MAX_LAN_BYTES, MAX_TERM, type Heartbeat } from '../../../lib/wire/lan.ts'

/** Long over: clocks at the edge are wrong, and a pool must hold together without the issuer. */
const ISSUED = Date.parse('1999-01-01T00:00:00Z')
const beat: Heartbeat = {
  term: 7,
  role: 'active',
  priority: 1,
  pool: 'bay',
  follows: 'bay2',
  leaving: false,
  handedOver: true,
}
const stamp = { boot: 3, sequence: 41 }

async function nodeOf(issuer: { certificatePem: string; keyPem: string }, name: string, days = 1, atMs = ISSUED) {
  const subject = { commonName: `system:node:${name}`, organization: 'system:nodes' }
  const { certificatePem, keyPem } = await createClient(issuer, subject, validFor(atMs, days))
  return { certificate: new X509Certificate(certificatePem), key: createPrivateKey(keyPem) }
}

const ca = await createAuthority('mesh', validFor(ISSUED, 3650))
const strangers = await createAuthority('another mesh', validFor(ISSUED, 3650))
const bay2 = await nodeOf(ca, 'bay2')
const peersOf = () => new LanPeers(new X509Certificate(ca.certificatePem))
const isMember = (node: string) => node.startsWith('bay')

t.test('what was said is what is heard', async (t) => {
  for (const [name, heartbeat] of [
    ['active', beat],
    ['standby that knows nobody', { ...beat, role: 'standby', follows: '', handedOver: false, term: 0 }],
    ['the last term', { ...beat, term: MAX_TERM, priority: 0xffff }],
    ['leaving', { ...beat, leaving: true, handedOver: false, follows: 'bay1' }],
    ['names as long as names get', { ...beat, pool: 'p'.repeat(253), follows: 'n'.repeat(253) }],
  ] as const) {
    const { whole, bare } = encodeHeartbeat(heartbeat, stamp, bay2)
    t.ok(whole.length <= MAX_LAN_BYTES, `${name}: ${whole.length} bytes`)
    t.match(decodeLan(bare), { ...stamp, heartbeat, certificate: undefined }, `${name}, bare`)
    t.strictSame(peersOf().receive(whole, isMember, 0), { ...heartbeat, node: 'bay2' }, name)
  }
})

t.test('who is believed', async (t) => {
  const stranger = await nodeOf(strangers, 'bay2')
  const outsider = await nodeOf(ca, 'cape1')
  const whole = (by: typeof bay2) => encodeHeartbeat(beat, stamp, by).whole
  const forged = Buffer.from(whole(bay2))
  forged.writeUInt32BE(99, 56)
  const otherCertificate = Buffer.concat([encodeHeartbeat(beat, stamp, bay2).bare, stranger.certificate.raw])
  for (const [name, datagram, heard] of [
    ['a member', whole(bay2), true],
    ['a member whose certificate is not here', encodeHeartbeat(beat, stamp, bay2).bare, false],
    ['another CA', whole(stranger), false],
    ['a node of another pool', whole(outsider), false],
    ['a changed term', forged, false],
    ["a member's words with a stranger's certificate", otherCertificate, false],
  ] as const)
    t.equal(peersOf().receive(datagram, isMember, 0) !== undefined, heard, name)
})

t.test('nothing counts twice', async (t) => {
  const renewed = await nodeOf(ca, 'bay2', 1, ISSUED + 86_400_000)
  const peers = peersOf()
  for (const [name, boot, sequence, by, heard] of [
    ['first', 3, 41, bay2, true],
    ['again', 3, 41, bay2, false],
    ['older', 3, 40, bay2, false],
    ['newer', 3, 42, bay2, true],
    ['before the last start', 2, 1000, bay2, false],
    ['after a start, with a sequence that begins anew', 4, 1, bay2, true],
    ['a node that lost its disk and joined again', 1, 1, renewed, true],
    ['under the certificate that it had before', 9, 9, bay2, false],
  ] as const)
    t.equal(peers.receive(encodeHeartbeat(beat, { boot, sequence }, by).whole, isMember, 0) !== undefined, heard, name)
  t.ok(peers.receive(encodeHeartbeat(beat, { boot: 1, sequence: 2 }, renewed).bare, isMember, 0), 'known by its hash')
})

t.test('a flood costs a budget of signature checks', async (t) => {
  const peers = peersOf()
  const good = encodeHeartbeat(beat, stamp, bay2).whole
  const bad = Buffer.from(good)
  bad[bad.length - bay2.certificate.raw.length - 1]! ^= 1
  for (let i = 0; i < 2_000; i++) peers.receive(bad, isMember, 0)
  t.equal(peers.receive(good, isMember, 0), undefined, 'spent')
  t.ok(peers.receive(good, isMember, 100), 'a moment later there is some again')
})

t.test('no bytes break the decoder', async (t) => {
  const { whole, bare } = encodeHeartbeat(beat, stamp, bay2)
  for (let length = 0; length < bare.length; length++)
    t.equal(decodeLan(bare.subarray(0, length)), undefined, `cut at ${length}`, { diagnostic: false })
  const peers = peersOf()
  for (let i = 0; i < 5_000; i++) {
    const noise = i % 2 === 0 ? randomBytes(i % 700) : Buffer.from(whole)
    if (i % 2 === 1) noise[i % noise.length]! ^= 1 + (i % 255)
    const said = peers.receive(noise, isMember, i * 10)
    if (said !== undefined && said.term !== 7) t.fail(`byte ${i % whole.length} changed what was said`)
  }
  const later = Buffer.from(whole)
  later[4] = 2
  t.equal(decodeLan(later), undefined, 'a version to come')
  later[4] = 1
  later[5] = 9
  t.equal(decodeLan(later), undefined, 'a kind to come')
})

t.test('whom an agent follows', async (t) => {
  const follower = new Follower()
  const candidates = ['bay1', 'bay2', 'bay3']
  const say = (node: string, term: number, role: 'active' | 'standby' = 'active'): Heard => ({
    ...beat,
    node,
    term,
    role,
    priority: candidates.indexOf(node),
  })
  t.equal(follower.active(candidates), undefined, 'nobody at first')
  for (const [name, heard, nowMs, active] of [
    ['a standby claims nothing', say('bay1', 9, 'standby'), 0, undefined],
    ['the first claim', say('bay2', 1), 0, 'bay2'],
    ['a higher term', say('bay3', 2), 100, 'bay3'],
    ['a lower one', say('bay1', 1), 200, 'bay3'],
    ['the same term from who comes first', say('bay1', 2), 300, 'bay1'],
    ['the same term from who comes later', say('bay3', 2), 400, 'bay1'],
    ['a lower claim while the strong one is silent for a moment', say('bay3', 2), 3_200, 'bay1'],
    ['a lower claim while it is silent for long: the LAN split', say('bay3', 2), 3_400, 'bay3'],
    ['a node that is no candidate any more', say('bay9', 7), 3_500, undefined],
  ] as const) {
    follower.heard(heard, nowMs)
    t.equal(follower.active(candidates), active, name)
  }
})
