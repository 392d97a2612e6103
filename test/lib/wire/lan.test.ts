// Heartbeats on a pool's LAN, and everything that a stranger on that LAN may do to them.

import 'reflect-metadata'
import { createPrivateKey, randomBytes, X509Certificate } from 'node:crypto'
import t from 'tap'
import { createAuthority, createClient, validFor } from '../../../lib/certificates.ts'
import { Follower, LanPeers, type Heard } from '../../../lib/lan.ts'
import { decodeLan, encodeLan, MAX_LAN_BYTES, MAX_TERM, type LanMessage } from '../../../lib/wire/lan.ts'
import { decodeFindings, encodeFindings, MAX_FINDINGS_BYTES, type Finding } from '../../../lib/wire/lan-findings.ts'

/** Long over: clocks at the edge are wrong, and a pool must hold together without the issuer. */
const ISSUED = Date.parse('1999-01-01T00:00:00Z')
const beat = {
  kind: 'heartbeat',
  term: 7,
  role: 'active',
  priority: 1,
  pool: 'bay',
  follows: 'bay2',
  leaving: false,
  handedOver: true,
} satisfies LanMessage
const stamp = { boot: 3, sequence: 41 }
const findings: readonly Finding[] = [
  { kind: 'node', pool: 'bay', node: 'bay3' },
  { kind: 'path', pool: 'cape', state: 'relayed' },
  { kind: 'path', pool: 'dune', state: 'silent' },
  { kind: 'endpoint', address: '10.244.3.10', port: 8080 },
  { kind: 'endpoint', address: 'fd00:244:3::10', port: 8080 },
]

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
  for (const [name, message] of [
    ['active', beat],
    ['standby that knows nobody', { ...beat, role: 'standby', follows: '', handedOver: false, term: 0 }],
    ['the last term', { ...beat, term: MAX_TERM, priority: 0xffff }],
    ['leaving', { ...beat, leaving: true, handedOver: false, follows: 'bay1' }],
    ['names as long as names get', { ...beat, pool: 'p'.repeat(253), follows: 'n'.repeat(253) }],
    ['with findings', { ...beat, findings }],
    ['an agent', { kind: 'presence', source: 'agent', asks: false, pool: 'bay' }],
    ['a gateway that asks', { kind: 'presence', source: 'gateway', asks: true, pool: 'bay', findings }],
  ] as const satisfies readonly (readonly [string, LanMessage])[]) {
    const { whole, bare } = encodeLan(message, stamp, bay2)
    t.ok(whole.length <= MAX_LAN_BYTES, `${name}: ${whole.length} bytes`)
    t.match(decodeLan(bare), { ...stamp, message, certificate: undefined }, `${name}, bare`)
    t.strictSame(peersOf().receive(whole, isMember, 0), { ...message, node: 'bay2' }, name)
  }
})

t.test('findings: as many as there is room for, and what a later version says is skipped', async (t) => {
  const many = Array.from({ length: 500 }, (_, i): Finding => ({ kind: 'node', pool: 'bay', node: `bay${i}` }))
  const bytes = encodeFindings(many)
  t.ok(bytes.length <= MAX_FINDINGS_BYTES, `${bytes.length} bytes`)
  const read = decodeFindings(bytes)
  t.ok(read.length > 50, `${read.length} of them`)
  t.strictSame(read, many.slice(0, read.length), 'the first')
  const unknown = Buffer.from([9, 2, 1, 1, 2, 4, 7, 2, 0x61, 0x62])
  const padded = Buffer.concat([unknown, encodeFindings(findings), Buffer.from([1, 200, 3])])
  t.strictSame(decodeFindings(padded), findings)
  t.strictSame(decodeFindings(encodeFindings([{ kind: 'node', pool: 'p'.repeat(300), node: 'n' }])), [])
  for (let i = 0; i < 5_000; i++) {
    const noise = i % 2 === 0 ? randomBytes(i % 900) : Buffer.from(padded)
    if (i % 2 === 1) noise[i % noise.length]! ^= 1 + (i % 255)
    t.doesNotThrow(() => decodeFindings(noise), { diagnostic: false })
  }
})

t.test('a node’s two daemons count each for itself', async (t) => {
  const peers = peersOf()
  const said = (message: LanMessage, boot: number) => encodeLan(message, { boot, sequence: 1 }, bay2).whole
  const presence = { kind: 'presence', source: 'agent', asks: false, pool: 'bay' } as const
  for (const [name, datagram, heard] of [
    ['its gateway', said(beat, 9), true],
    ['its agent, which began later to count', said(presence, 2), true],
    ['again', said(presence, 2), false],
    ['its gateway asks', said({ ...presence, source: 'gateway', asks: true }, 10), true],
    ['what its gateway said before', said(beat, 9), false],
  ] as const)
    t.equal(peers.receive(datagram, isMember, 0) !== undefined, heard, name)
})

t.test('who is believed', async (t) => {
  const stranger = await nodeOf(strangers, 'bay2')
  const outsider = await nodeOf(ca, 'cape1')
  const whole = (by: typeof bay2) => encodeLan(beat, stamp, by).whole
  const forged = Buffer.from(whole(bay2))
  forged.writeUInt32BE(99, 56)
  const otherCertificate = Buffer.concat([encodeLan(beat, stamp, bay2).bare, stranger.certificate.raw])
  for (const [name, datagram, heard] of [
    ['a member', whole(bay2), true],
    ['a member whose certificate is not here', encodeLan(beat, stamp, bay2).bare, false],
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
    t.equal(peers.receive(encodeLan(beat, { boot, sequence }, by).whole, isMember, 0) !== undefined, heard, name)
  t.ok(peers.receive(encodeLan(beat, { boot: 1, sequence: 2 }, renewed).bare, isMember, 0), 'known by its hash')
})

t.test('a flood costs a budget of signature checks', async (t) => {
  const peers = peersOf()
  const good = encodeLan(beat, stamp, bay2).whole
  const bad = Buffer.from(good)
  bad[bad.length - bay2.certificate.raw.length - 1]! ^= 1
  for (let i = 0; i < 2_000; i++) peers.receive(bad, isMember, 0)
  t.equal(peers.receive(good, isMember, 0), undefined, 'spent')
  t.ok(peers.receive(good, isMember, 100), 'a moment later there is some again')
})

t.test('no bytes break the decoder', async (t) => {
  const { whole, bare } = encodeLan(beat, stamp, bay2)
  for (let length = 0; length < bare.length; length++)
    t.equal(decodeLan(bare.subarray(0, length)), undefined, `cut at ${length}`, { diagnostic: false })
  const peers = peersOf()
  for (let i = 0; i < 5_000; i++) {
    const noise = i % 2 === 0 ? randomBytes(i % 700) : Buffer.from(whole)
    if (i % 2 === 1) noise[i % noise.length]! ^= 1 + (i % 255)
    const said = peers.receive(noise, isMember, i * 10)
    if (said !== undefined && (said.kind !== 'heartbeat' || said.term !== 7))
      t.fail(`byte ${i % whole.length} changed what was said`)
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
