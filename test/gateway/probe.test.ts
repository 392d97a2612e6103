import { generateKeyPairSync } from 'node:crypto'
import t from 'tap'
import { encodeProbe, encodeProbeAnswer, probeKey, publicKeyOf, usernameOf } from '../../gateway/probe.ts'
import { decodeStun, hasIntegrity } from '../../lib/wire/stun.ts'

const newKey = () =>
  generateKeyPairSync('x25519').privateKey.export({ type: 'pkcs8', format: 'der' }).subarray(-32).toString('base64')

t.test('public halves are those that wg computes', async (t) => {
  // RFC 7748 §6.1: Bob's keys.
  const bob = Buffer.from('5dab087e624a8a4b79e17f8b83800ee66f3bb1292618b6fd1c2f8b27ff88e0eb', 'hex').toString('base64')
  t.equal(
    Buffer.from(publicKeyOf(bob), 'base64').toString('hex'),
    'de9edb7d7b7dc1b4d35b61c2ece435373f8343c85b78674dadfc7e146f882b4f',
  )
})

t.test('both sides, and nobody else, have the key of a pair', async (t) => {
  const [a, b, c] = [newKey(), newKey(), newKey()]
  const key = probeKey(a, publicKeyOf(b))
  t.strictSame(probeKey(b, publicKeyOf(a)), key)
  t.notSame(probeKey(c, publicKeyOf(a)), key)
  t.notSame(probeKey(a, publicKeyOf(c)), key)
})

t.test('a probe and its answer', async (t) => {
  const [a, b] = [newKey(), newKey()]
  const key = probeKey(a, publicKeyOf(b))
  const id = Buffer.alloc(12, 5)
  const probe = encodeProbe(id, usernameOf(publicKeyOf(a)), key)
  const message = decodeStun(probe)!
  t.equal(message.username, usernameOf(publicKeyOf(a)))
  t.ok(hasIntegrity(probe, key))
  t.notOk(hasIntegrity(probe, probeKey(a, publicKeyOf(newKey()))))

  const source = { address: '198.51.100.7', port: 4242, family: 4 } as const
  const answer = encodeProbeAnswer(message, source, key)
  t.match(decodeStun(answer), { class: 'success', xorMappedAddress: source })
  t.ok(hasIntegrity(answer, key))
  answer[answer.length - 40]! ^= 1
  t.notOk(hasIntegrity(answer, key), 'a changed answer')
})
