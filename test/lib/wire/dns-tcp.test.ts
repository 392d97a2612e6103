import t from 'tap'
import { firstMessage, framed } from '../../../lib/wire/dns-tcp.ts'

t.test('messages come out as they went in, wherever they are cut', async (t) => {
  const messages = [0, 1, 255, 256, 0xffff].map((length) => Buffer.alloc(length, length))
  const bytes = Buffer.concat(messages.map(framed))
  t.strictSame([...bytes.subarray(0, 5)], [0, 0, 0, 1, 1])
  for (const step of [3, 1000, bytes.length]) {
    const found: Buffer[] = []
    let received: Buffer = Buffer.alloc(0)
    for (let at = 0; at < bytes.length; at += step) {
      received = Buffer.concat([received, bytes.subarray(at, at + step)])
      for (let next = firstMessage(received); next !== undefined; next = firstMessage(received)) {
        found.push(next.message)
        received = next.rest
      }
    }
    t.ok(
      found.every((message, i) => message.equals(messages[i]!)),
      `${step} bytes at a time`,
    )
    t.equal(found.length, messages.length)
    t.equal(received.length, 0)
  }
})
