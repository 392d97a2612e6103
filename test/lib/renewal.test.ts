import { X509Certificate } from 'node:crypto'
import t from 'tap'
import { createAuthority, createClient, issuedMs, validFor } from '../../lib/certificates.ts'
import { renewalMs, spanMsOf } from '../../lib/renewal.ts'

const DAY_MS = 86_400_000
const NOW = Date.parse('2027-03-01T12:00:00Z')
const ca = await createAuthority('mesh', validFor(NOW, 3650))
const certified = async (days: number): Promise<X509Certificate> => {
  const subject = { commonName: 'system:node:h1', organization: 'system:nodes' }
  return new X509Certificate((await createClient(ca, subject, validFor(NOW, days))).certificatePem)
}

for (const days of [3650, 90, 1, 1 / 24, 1 / 1440])
  t.test(`${days} days`, async (t) => {
    const certificate = await certified(days)
    t.ok(Math.abs(issuedMs(certificate) - NOW) <= 1_000, 'tells when it was issued, to the second')
    t.ok(certificate.validFromDate.getTime() < NOW, 'back-dated')
    const share = (renewalMs(certificate) - certificate.validFromDate.getTime()) / spanMsOf(certificate)
    t.ok(share >= 0.7 && share < 0.8, `renewed at ${share} of its life`)
    t.equal(renewalMs(certificate), renewalMs(new X509Certificate(certificate.raw)), 'always the same')
  })

t.test('400 sites that were set up in one hour do not come in one hour', async (t) => {
  const hours = new Map<number, number>()
  const certificate = await certified(90)
  for (let i = 0; i < 400; i++) {
    const fingerprint256 = Buffer.from(crypto.getRandomValues(new Uint8Array(32))).toString('hex')
    const { validFromDate, validToDate } = certificate
    const hour = Math.floor(renewalMs({ validFromDate, validToDate, fingerprint256 }) / (DAY_MS / 24))
    hours.set(hour, (hours.get(hour) ?? 0) + 1)
  }
  t.ok(Math.max(...hours.values()) <= 20, `at most ${Math.max(...hours.values())} in an hour, over nine days`)
})
