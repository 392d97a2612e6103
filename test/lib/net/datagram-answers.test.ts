// Real sockets of both families, one by one and in bursts that make batches.

import { createSocket, type Socket } from 'node:dgram'
import { setTimeout as sleep } from 'node:timers/promises'
import t, { type Test } from 'tap'
import { openDatagramAnswers, type DatagramAnswersOptions } from '../../../lib/net/datagram-answers.ts'
import { DatagramBatch, senderText } from '../../../lib/net/datagram-batch.ts'
import { freeUdpPorts } from '../free-ports.ts'
import { until } from '../netns.ts'

type Way = { readonly address: string; readonly batch: DatagramBatch | undefined; readonly name: string }
const WAYS: readonly Way[] = ['127.0.0.1', '::1'].flatMap((address) => [
  { address, batch: DatagramBatch.get(), name: `${address} in batches` },
  { address, batch: undefined, name: `${address} one by one` },
])
type Answer = DatagramAnswersOptions['answer']

async function serve(t: Test, { address, batch }: Way, answer: Answer): Promise<{ port: number; close: () => void }> {
  const [port] = await freeUdpPorts()
  const opened = await openDatagramAnswers(
    { address, port, receiveBytes: 1 << 20, answer, onError: () => undefined },
    batch,
  )
  let open = true
  const close = (): void => {
    if (open) opened.close()
    open = false
  }
  t.teardown(close)
  return { port, close }
}

/** A client that keeps what it got. */
async function client(t: Test, address: string): Promise<{ socket: Socket; got: string[] }> {
  const socket = createSocket({ type: address.includes(':') ? 'udp6' : 'udp4', recvBufferSize: 1 << 20 })
  const got: string[] = []
  socket.on('message', (bytes) => got.push(String(bytes)))
  await new Promise<void>((resolve) => socket.bind(0, address, resolve))
  t.teardown(() => void socket.close())
  return { socket, got }
}

const upper = (message: Buffer): Buffer => Buffer.from(String(message).toUpperCase())

t.test('batches can be had here', async (t) => {
  t.ok(DatagramBatch.get())
  t.equal(DatagramBatch.get(), DatagramBatch.get())
})

for (const way of WAYS) {
  const { address, batch, name } = way
  t.test(`bursts of several clients, ${name}`, async (t) => {
    const { port } = await serve(t, way, upper)
    const clients = await Promise.all(Array.from({ length: 5 }, () => client(t, address)))
    const count = 200
    for (let i = 0; i < count; i++)
      clients.forEach(({ socket }, who) => socket.send(`question ${i} of client ${who}`, port, address))
    await until('all are answered', 5_000, async () => clients.every(({ got }) => got.length === count))
    clients.forEach(({ got }, who) =>
      t.strictSame(
        got.toSorted(),
        Array.from({ length: count }, (_, i) => `QUESTION ${i} OF CLIENT ${who}`).sort(),
        'each its own',
      ),
    )
  })

  t.test(`now, later and never, ${name}`, async (t) => {
    const said = new Set<string>()
    const { port } = await serve(t, way, (message, sender) => {
      said.add(sender())
      const text = String(message)
      if (text.startsWith('never')) return undefined
      return text.startsWith('later')
        ? sleep(20).then(() => (text.endsWith('7') ? undefined : upper(message)))
        : upper(message)
    })
    const { socket, got } = await client(t, address)
    for (let i = 0; i < 100; i++) socket.send(`${['now', 'later', 'never'][i % 3]} ${i}`, port, address)
    const expected = Array.from({ length: 100 }, (_, i) => i)
      .filter((i) => i % 3 === 0 || (i % 3 === 1 && i % 10 !== 7))
      .map((i) => `${['NOW', 'LATER'][i % 3]} ${i}`)
    await until('all are answered', 5_000, async () => got.length >= expected.length)
    t.strictSame(got.toSorted(), expected.toSorted())
    t.strictSame([...said], [address])
  })

  t.test(`long datagrams and long answers, ${name}`, async (t) => {
    const { port } = await serve(t, way, (message) => Buffer.from(`${message.length > 4_000 ? 'long' : message}`))
    const { socket, got } = await client(t, address)
    for (let i = 0; i < 40; i++) socket.send(Buffer.alloc(i % 2 === 0 ? 9_000 : 0, 0x61), port, address)
    socket.send('x'.repeat(1_280), port, address)
    await until('all are answered', 5_000, async () => got.length === 41)
    t.equal(got.filter((text) => text === 'long').length, 20)
    t.equal(got.filter((text) => text === '').length, 20)
    t.equal(got.filter((text) => text.length === 1_280).length, 1)
  })

  t.test(`answers that come after the end go nowhere, ${name}`, async (t) => {
    const later = Promise.withResolvers<Buffer>()
    let asked = 0
    const { port, close } = await serve(t, way, () => {
      asked++
      return later.promise
    })
    const { socket, got } = await client(t, address)
    for (let i = 0; i < 20; i++) socket.send('question', port, address)
    await until('all have come', 5_000, async () => asked === 20)
    close()
    // It may well get the number of the closed socket.
    const other = await client(t, address)
    later.resolve(Buffer.from('answer'))
    await sleep(30)
    t.strictSame([got, other.got], [[], []])
  })

  t.test(`an address that cannot be had, ${name}`, async (t) => {
    const { port } = await serve(t, way, upper)
    const options = { port, receiveBytes: 1 << 16, answer: upper, onError: () => undefined }
    await t.rejects(openDatagramAnswers({ ...options, address }, batch), { code: 'EADDRINUSE', syscall: 'bind' })
    const far = address.includes(':') ? '2001:db8::1' : '192.0.2.1'
    await t.rejects(openDatagramAnswers({ ...options, address: far }, batch), {
      code: 'EADDRNOTAVAIL',
      syscall: 'bind',
    })
  })
}

t.test('senders in text', async (t) => {
  const v4 = Buffer.from([2, 0, 0x14, 0xe9, 192, 0, 2, 1, 0, 0, 0, 0, 0, 0, 0, 0])
  t.equal(senderText(v4), '192.0.2.1')
  const v6 = Buffer.concat([
    Buffer.from([10, 0, 0, 53, 0, 0, 0, 0, 0x20, 1, 0x0d, 0xb8]),
    Buffer.alloc(11),
    Buffer.from([1, 0, 0, 0, 0]),
  ])
  t.equal(senderText(v6), '2001:db8::1')
  t.equal(senderText(new Uint8Array(4)), 'unknown')
})
