// What daemons of the next version may say to those of this one: more fields, kinds that are not known here, another number
// for the version. Whatever the format, the first is read as if it were not there, the second is passed over, and nothing
// ends a session or a daemon.

import 'reflect-metadata'
import { createPrivateKey, sign, X509Certificate } from 'node:crypto'
import t from 'tap'
import { openAnnouncement, signAnnouncement } from '../../gateway/announcement.ts'
import { decodeEcho, encodeEcho } from '../../gateway/echo.ts'
import { decodeHandover, encodeHandover } from '../../gateway/handover.ts'
import { createAuthority, createClient, validFor } from '../../lib/certificates.ts'
import { decodeJoinAnswer, decodeJoinRefusal, decodeJoinRequest, decodeRenewRequest } from '../../lib/wire/join.ts'
import { decodeLan, encodeLan, isSignedBy, type LanMessage } from '../../lib/wire/lan.ts'
import { encodeMux, MuxReader, type MuxFrame, type SentFrame } from '../../lib/wire/mux.ts'
import { dataFrame, kindOf } from '../../lib/wire/packet-frame.ts'
import { decodeSignal, encodeSignal, type SignalFrame } from '../../lib/wire/signal.ts'
import { decodePresence, encodePresence } from '../../relay/presence.ts'

const CERTIFIED_MS = Date.parse('2026-03-01T00:00:00Z')
const LATER = { more: [{ of: 'a later version' }] }

/** With a field more in every object, and of the next version. */
function later(value: unknown): unknown {
  if (Array.isArray(value)) return value.map(later)
  if (typeof value !== 'object' || value === null) return value
  const fields = Object.entries(value).map(([key, each]) => [key, key === 'version' ? 2 : later(each)] as const)
  return { ...Object.fromEntries(fields), later: LATER }
}
const laterText = (text: string): string => JSON.stringify(later(JSON.parse(text)))

const signed = { certificate: 'Yw', payload: 'cA', signature: 'cw' }
const SIGNALS: readonly SignalFrame[] = [
  { kind: 'hello', version: 1, role: 'gateway', known: 'AAAAAAAA' },
  {
    kind: 'welcome',
    version: 1,
    relay: 'r',
    observedAddress: '192.0.2.1:1',
    replicas: [['https://203.0.113.10:443'], ['https://203.0.113.12:443', 'https://[2001:db8::12]:443']],
  },
  { kind: 'announce', node: 'h1', announcement: signed },
  { kind: 'ready', node: 'h1', reply: true },
  { kind: 'call', node: 'h1', reply: false },
  { kind: 'gone', node: 'h1' },
  { kind: 'udp-request', node: 'h1' },
  {
    kind: 'udp-session',
    node: 'h1',
    username: '40002',
    cookie: 'abc',
    wanted: true,
    endpoints: [{ address: '203.0.113.10', port: 40_002, family: 4, ready: true }],
  },
  { kind: 'udp-end', node: 'h1', reason: 'no port' },
]

t.test('JSON', async (t) => {
  for (const frame of SIGNALS) t.same(decodeSignal(laterText(encodeSignal(frame))), frame, frame.kind)
  t.equal(decodeSignal('{"kind":"of a later version","node":7}'), undefined)

  const presence = { here: ['h1'], gone: [['h2', 5]] } as const
  t.same(decodePresence(laterText(encodePresence(presence))), presence, 'presence')

  const secret = 'AAECAwQFBgcICQoLDA0ODxAREhMUFRYX'
  const bodies = [
    [decodeJoinRequest, { version: 1, secret, csr: 'c' }],
    [decodeJoinRequest, { version: 1, serviceAccountToken: 'a.b.c', csr: 'c' }],
    [decodeRenewRequest, { version: 1, csr: 'c' }],
    [decodeJoinAnswer, { version: 1, node: 'h1', certificate: 'c', ca: 'a', relays: ['https://r'], stun: [] }],
    [decodeJoinRefusal, { code: 'FULMAR_OF_A_LATER_VERSION', message: 'why' }],
  ] as const
  for (const [decode, body] of bodies) t.same(decode(laterText(JSON.stringify(body))), body, decode.name)
})

t.test('what nodes sign', async (t) => {
  const authority = await createAuthority('mesh', validFor(CERTIFIED_MS, 3_650))
  const subject = { commonName: 'system:node:h1', organization: 'system:nodes' }
  const node = await createClient(authority, subject, validFor(CERTIFIED_MS, 30))
  const [certificate, key] = [new X509Certificate(node.certificatePem), createPrivateKey(node.keyPem)]
  const algorithm = key.asymmetricKeyType === 'ed25519' ? null : 'sha256'

  await t.test('announcements', async (t) => {
    const announcement = {
      node: 'h1',
      sequence: 7,
      wireguardKey: Buffer.alloc(32, 9).toString('base64'),
      candidates: [{ kind: 'host', address: { address: '192.168.1.10', port: 21_000, family: 4 } }],
      nat: { mapping: 'none', filtering: 'unknown', udp: 'open' },
      role: { active: true, term: 3 },
    } as const
    const { payload } = signAnnouncement(announcement, certificate, key)
    const said = later(JSON.parse(Buffer.from(payload, 'base64').toString())) as { candidates: object[] }
    said.candidates.push({ kind: 'of a later version', address: '192.0.2.1:1' }, { kind: 'host', address: 'elsewhere' })
    const bytes = Buffer.from(JSON.stringify(said))
    const whole = {
      certificate: certificate.raw.toString('base64'),
      payload: bytes.toString('base64'),
      signature: sign(algorithm, bytes, key).toString('base64'),
    }
    t.match(openAnnouncement(whole, new X509Certificate(authority.certificatePem)), announcement)
  })

  await t.test('datagrams on the LAN', async (t) => {
    const messages: readonly LanMessage[] = [
      {
        kind: 'heartbeat',
        term: 3,
        role: 'active',
        priority: 1,
        pool: 'p',
        follows: 'h1',
        leaving: false,
        handedOver: true,
      },
      { kind: 'presence', source: 'agent', asks: true, pool: 'p' },
    ]
    const finding = Buffer.of(99, 3, 1, 2, 3)
    for (const message of messages) {
      const { bare } = encodeLan(message, { boot: 1, sequence: 2 }, { certificate, key })
      const body = bare.subarray(0, bare.readUInt16BE(6))
      const resigned = (change: (head: Buffer) => void): Buffer => {
        const head = Buffer.concat([body, finding])
        head.writeUInt16BE(head.length, 6)
        change(head)
        const signature = sign(algorithm, head, key)
        return Buffer.concat([head, Buffer.of(signature.length), signature])
      }
      const read = decodeLan(resigned(() => undefined))
      t.same(read?.message, message, `${message.kind} with what is not known behind it`)
      t.ok(read !== undefined && isSignedBy(read, certificate.publicKey))
      t.equal(decodeLan(resigned((head) => (head[5] = 9))), undefined, 'another kind')
      t.equal(decodeLan(resigned((head) => (head[4] = 2))), undefined, 'another version')
    }
  })
})

t.test('frames', async (t) => {
  const changed = (bytes: Buffer, at: number, value: number): Buffer => {
    const copy = Buffer.concat([bytes, Buffer.from('and more')])
    copy[at] = value
    return copy
  }
  const echo = {
    kind: 'request',
    sequence: 3,
    size: 'small',
    interested: true,
    role: { active: true, term: 2 },
  } as const
  const echoed = encodeEcho(echo)
  t.same(decodeEcho(changed(echoed, 6, echoed[6]! | 0xf0)), echo, 'an echo with other flags')
  t.equal(decodeEcho(changed(echoed, 5, 9)), undefined)
  t.equal(decodeEcho(changed(echoed, 4, 2)), undefined)

  const handover = { kind: 'leave', reply: false, id: 7, successor: 'h2', port: 0 } as const
  const handed = encodeHandover(handover)
  t.same(decodeHandover(changed(handed, 6, 0xf0)), handover, 'a hand-over with other flags')
  t.equal(decodeHandover(changed(handed, 5, 9)), undefined)

  t.equal(kindOf(changed(dataFrame(1, Buffer.of(1)), 1, 9)), 'unknown', 'a packet frame')
  t.throws(
    () => kindOf(changed(dataFrame(1, Buffer.of(1)), 0, 2)),
    /packet frame of version 2/,
    'refused by its reason',
  )

  const known: readonly SentFrame[] = [{ kind: 'open', stream: 1, windowBytes: 9, host: 'h1', port: 10_250 }]
  const strange = encodeMux({ kind: 'ping', token: Buffer.alloc(8) })
  strange[3] = 0xc0
  const frames: MuxFrame[] = []
  const reader = new MuxReader((frame) => frames.push(frame))
  reader.read(Buffer.concat([strange, ...known.map(encodeMux)]), true)
  t.same(frames, [{ kind: 'unknown' }, ...known], 'streams go on behind a frame that is not known')
})
