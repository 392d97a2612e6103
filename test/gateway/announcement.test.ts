// Announcements as peers sign them, and everything that a relay or a stranger may do to them.

import 'reflect-metadata'
import { createPrivateKey, X509Certificate } from 'node:crypto'
import t from 'tap'
import {
  isNewer,
  judgeDates,
  openAnnouncement,
  signAnnouncement,
  type Announcement,
} from '../../gateway/announcement.ts'
import { createAuthority, createClient, validFor } from '../../lib/certificates.ts'

const NOW = Date.parse('2026-03-01T00:00:00Z')
const DAY_MS = 86_400_000
const announcement: Announcement = {
  node: 'harbor1',
  sequence: 7,
  wireguardKey: Buffer.alloc(32, 9).toString('base64'),
  candidates: [
    { kind: 'host', address: { address: '192.168.1.10', port: 21000, family: 4 } },
    { kind: 'mapped', address: { address: '198.51.100.7', port: 21000, family: 4 } },
    { kind: 'reflexive', address: { address: '2001:db8::1', port: 21000, family: 6 } },
  ],
  nat: {
    mapping: 'endpoint-independent',
    filtering: 'unknown',
    udp: 'open',
    mapped: '198.51.100.7:21000',
    hairpin: false,
  },
}

async function authority(name: string) {
  const pair = await createAuthority(name, validFor(NOW, 3650))
  return { pair, certificate: new X509Certificate(pair.certificatePem) }
}

async function node(
  issuer: Awaited<ReturnType<typeof authority>>,
  commonName: string,
  organization = 'system:nodes',
  atMs = NOW,
) {
  const { certificatePem, keyPem } = await createClient(issuer.pair, { commonName, organization }, validFor(atMs, 30))
  return { certificate: new X509Certificate(certificatePem), key: createPrivateKey(keyPem) }
}

t.test('announcements', async (t) => {
  const ca = await authority('mesh')
  const stranger = await authority('another mesh')
  const harbor = await node(ca, 'system:node:harbor1')
  const plant = await node(ca, 'system:node:plant1')
  const signed = signAnnouncement(announcement, harbor.certificate, harbor.key)

  t.test('what was signed is what is read', async (t) => {
    const { certifiedMs, expiresMs, ...read } = openAnnouncement(signed, ca.certificate)
    t.strictSame(read, announcement)
    t.equal(certifiedMs, Date.parse(harbor.certificate.validFrom))
    t.equal(expiresMs, Date.parse(harbor.certificate.validTo))
  })

  const changed = Buffer.from(Buffer.from(signed.payload, 'base64').toString().replace('192.168.1.10', '192.168.1.66'))
  const other = await node(stranger, 'system:node:harbor1')
  const user = await node(ca, 'system:node:harbor1', 'system:users')
  for (const [name, forged, message] of [
    ['a changed address', { ...signed, payload: changed.toString('base64') }, /signature/],
    ['a certificate of another CA', signAnnouncement(announcement, other.certificate, other.key), /not from our CA/],
    ["another node's name", signAnnouncement(announcement, plant.certificate, plant.key), /names node harbor1/],
    [
      'a certificate that is no node’s',
      signAnnouncement(announcement, user.certificate, user.key),
      /names node harbor1/,
    ],
    ["another node's certificate", { ...signed, certificate: plant.certificate.raw.toString('base64') }, /signature/],
    ['no certificate at all', { ...signed, certificate: 'AAAA' }, /cannot be read/],
    [
      'a key that is none',
      signAnnouncement({ ...announcement, wireguardKey: 'short' }, harbor.certificate, harbor.key),
      /wireguardKey/,
    ],
    [
      'a key that every secret is zero with',
      signAnnouncement(
        { ...announcement, wireguardKey: Buffer.alloc(32).toString('base64') },
        harbor.certificate,
        harbor.key,
      ),
      /wireguardKey/,
    ],
  ] as const)
    t.throws(() => openAnnouncement(forged, ca.certificate), { code: 'FULMAR_PROTOCOL', message }, name)

  t.test('whom the dates of a certificate let in', async (t) => {
    const dates = openAnnouncement(signed, ca.certificate)
    const { certifiedMs, expiresMs } = dates
    const graceMs = 365 * DAY_MS
    const rows: readonly [
      name: string,
      nowMs: number,
      isBehind: boolean,
      fresh: RegExp | true,
      known: RegExp | true,
    ][] = [
      ['in time', NOW, false, true, true],
      ['in its last second', expiresMs - 1, false, true, true],
      ['ended', expiresMs, false, /new peer.*valid from .* only/, true],
      ['before its time, by a clock that is late', certifiedMs - 1, false, /new peer.*valid from .* only/, true],
      ['a clock that starts in 1970', NOW, true, /new peer.*clock of this node is wrong/, true],
      ['offline for long', expiresMs + graceMs - 1, false, /valid from/, true],
      ['for too long', expiresMs + graceMs, false, /valid from/, /known for 365 days after that \(--peer-grace\)/],
    ]
    for (const [name, nowMs, isBehind, fresh, known] of rows)
      for (const [who, isKnown, verdict] of [
        ['new', false, fresh],
        ['known', true, known],
      ] as const) {
        const judge = () =>
          judgeDates(dates, isKnown, { clock: { now: () => nowMs, isBehind: () => isBehind }, graceMs })
        if (verdict === true) t.doesNotThrow(judge, `${name}, ${who}`)
        else t.throws(judge, { code: 'FULMAR_PROTOCOL', message: verdict }, `${name}, ${who}`)
      }
  })

  t.test('the newer one wins: by certificate, then by sequence', async (t) => {
    const at = (certifiedMs: number, sequence: number) => ({ ...announcement, certifiedMs, expiresMs: 9, sequence })
    t.ok(isNewer(at(1, 1), undefined))
    t.ok(isNewer(at(1, 2), at(1, 1)))
    t.notOk(isNewer(at(1, 1), at(1, 1)), 'a replay')
    t.notOk(isNewer(at(1, 1), at(1, 9)))
    t.ok(isNewer(at(2, 1), at(1, 9)), 'a node that lost its disk')
  })

  t.test('candidates of kinds to come, and of one that nobody announces, are left out', async (t) => {
    const { address } = announcement.candidates[0]!
    const candidates = [{ kind: 'quantum', address }, { kind: 'static', address }, ...announcement.candidates]
    const future = signAnnouncement(
      { ...announcement, candidates } as unknown as Announcement,
      harbor.certificate,
      harbor.key,
    )
    t.strictSame(openAnnouncement(future, ca.certificate).candidates, announcement.candidates)
  })
})
