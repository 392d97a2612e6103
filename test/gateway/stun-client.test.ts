import t from 'tap'
import { createSocket, type RemoteInfo, type Socket } from 'node:dgram'
import { once } from 'node:events'
import { Worker } from 'node:worker_threads'
import { socketAddress, type SocketAddress } from '../../lib/address.ts'
import { createLog } from '../../lib/log.ts'
import { decodeStun, encodeStun, type StunMessage } from '../../lib/wire/stun.ts'
import { discoverNat } from '../../gateway/nat-client.ts'
import { createStunClient } from '../../gateway/stun-client.ts'
import { runStunServer } from '../../relay/stun-server.ts'
import { freeUdpPorts } from '../lib/free-ports.ts'

const log = createLog('relay', 'silent')
const never = new AbortController().signal
const at = (address: string, port: number): SocketAddress => socketAddress(address, port)!

/** A server of one socket that answers as it is told; undefined is silence. */
async function fake(
  answer: (request: StunMessage, count: number, from: RemoteInfo) => Partial<StunMessage> | undefined,
) {
  const socket = createSocket('udp4')
  await new Promise<void>((done) => socket.bind(0, '127.0.0.1', done))
  let count = 0
  socket.on('message', (datagram, from) => {
    const request = decodeStun(datagram)!
    const fields = answer(request, ++count, from)
    const message = { ...request, class: 'success' as const, ...fields }
    if (fields !== undefined) socket.send(encodeStun(message), from.port, from.address)
  })
  return { socket, address: at('127.0.0.1', socket.address().port), count: () => count }
}

async function shared(): Promise<Socket> {
  const socket = createSocket('udp4')
  await new Promise<void>((done) => socket.bind(0, '127.0.0.1', done))
  return socket
}

const MAPPED = at('198.51.100.1', 4242)

t.test('a client asks through a socket of another', async (t) => {
  const socket = await shared()
  const others: StunMessage[] = []
  const client = createStunClient((datagram, to) => socket.send(datagram, to.port, to.address))
  socket.on('message', (datagram, { address, port }) => {
    const message = decodeStun(datagram)!
    if (!client.onMessage(message, at(address, port))) others.push(message)
  })
  const rows: readonly (readonly [string, Parameters<typeof fake>[0], SocketAddress | undefined, number])[] = [
    ['an answer', () => ({ xorMappedAddress: MAPPED }), MAPPED, 1],
    ['an old server', () => ({ mappedAddress: MAPPED }), MAPPED, 1],
    ['two packets lost', (_, count) => (count < 3 ? undefined : { xorMappedAddress: MAPPED }), MAPPED, 3],
    ['silence', () => undefined, undefined, 4],
    ['an error', () => ({ class: 'error', errorCode: { code: 500, reason: '' } }), undefined, 1],
    ['a success without an address', () => ({}), undefined, 1],
    ['the answer to another question', () => ({ transactionId: Buffer.alloc(12) }), undefined, 4],
  ]
  for (const [name, answer, expected, sent] of rows) {
    const server = await fake(answer)
    t.strictSame(await client.request(server.address, 600), expected, name)
    t.equal(server.count(), sent, `${name}: ${sent} requests`)
    server.socket.close()
  }
  t.equal(others.length, 4, 'what is no answer to us is left to the others')
  const request = {
    class: 'request',
    method: 1,
    transactionId: Buffer.alloc(12),
    classic: false,
    unknownAttributes: [],
  } as const
  t.notOk(client.onMessage(request, MAPPED), 'so are requests')

  let transactionId: Uint8Array = Buffer.alloc(0)
  const server = await fake((request) => void (transactionId = request.transactionId))
  const asked = client.request(server.address, 250)
  while (server.count() === 0) await new Promise((done) => setTimeout(done, 5))
  const forged: StunMessage = { ...request, class: 'success', transactionId, xorMappedAddress: MAPPED }
  t.ok(client.onMessage(forged, at('127.0.0.1', 9)), 'an answer from elsewhere is taken')
  t.equal(await asked, undefined, 'and not believed')

  const ending = new AbortController()
  const short = createStunClient(() => {}, ending.signal)
  const waiting = Array.from({ length: 64 }, () => short.request(server.address, 60_000))
  t.equal(await short.request(server.address, 60_000), undefined, 'one more than there is room for')
  ending.abort()
  t.strictSame(new Set(await Promise.all(waiting)), new Set([undefined]), 'the signal ends all')
  server.socket.close()
  socket.close()
})

t.test('a process that stood still reads its answers before it calls a server silent', async (t) => {
  const socket = await shared()
  const client = createStunClient((datagram, to) => socket.send(datagram, to.port, to.address))
  socket.on('message', (datagram, { address, port }) => {
    client.onMessage(decodeStun(datagram)!, at(address, port))
  })
  // In a thread of its own: it answers while this one stands still.
  const thread = new Worker(new URL('data:text/javascript,' + encodeURIComponent(ANSWERING)))
  const [port] = (await once(thread, 'message')) as [number]
  const asked = client.request(at('127.0.0.1', port), 600)
  // The last request leaves after 500 ms; its answer and the end of the wait come meanwhile.
  await once(thread, 'message')
  Atomics.wait(new Int32Array(new SharedArrayBuffer(4)), 0, 0, 500)
  t.equal((await asked)?.address, '127.0.0.1')
  await thread.terminate()
  socket.close()
})
/** Tells of the fourth request and turns it into a success with a XOR-MAPPED-ADDRESS of 127.0.0.1. */
const ANSWERING = `
  import { createSocket } from 'node:dgram'
  import { parentPort } from 'node:worker_threads'
  const socket = createSocket('udp4')
  let requests = 0
  socket.on('message', (request, { address, port }) => {
    if (++requests < 4) return
    if (requests === 4) parentPort.postMessage(0)
    const answer = Buffer.concat([request.subarray(0, 20), Buffer.from('00200008000100005e12a443', 'hex')])
    answer.writeUInt16BE(0x0101, 0)
    answer.writeUInt16BE(12, 2)
    setTimeout(() => socket.send(answer, port, address), 40)
  })
  socket.bind(0, '127.0.0.1', () => parentPort.postMessage(socket.address().port))
`

t.test('discovery against our own server on loopback', async (t) => {
  const ports = await freeUdpPorts()
  const end = new AbortController()
  const server = await runStunServer({ addresses: ['127.0.0.1', '127.0.0.2', '::1'], ports, log }, end.signal)
  const started = performance.now()
  const open = { mapping: 'none', filtering: 'none', udp: 'open' }
  t.strictSame(await discoverNat({ servers: [at('127.0.0.1', ports[0])], family: 4 }, never), open)
  const tookMs = performance.now() - started
  t.ok(tookMs < 100, `within ${tookMs.toFixed(1)} ms`)
  t.ok(server.requests() <= 6, `with ${server.requests()} requests`)
  t.strictSame(
    await discoverNat({ servers: [at('127.0.0.2', ports[1])], family: 4 }, never),
    open,
    'from the other end',
  )
  t.strictSame(
    await discoverNat({ servers: [at('127.0.0.1', 1), at('127.0.0.1', ports[0])], family: 4 }, never),
    open,
    'beside a dead server',
  )
  t.strictSame(
    await discoverNat({ servers: [at('::1', ports[0])], family: 6 }, never),
    { mapping: 'none', filtering: 'unknown', udp: 'open' },
    'one address',
  )
  end.abort()
  await server.closed
})

t.test('what goes wrong is a result', async (t) => {
  const unknown = { mapping: 'unknown', filtering: 'unknown', udp: 'unknown' }
  const blocked = { mapping: 'unknown', filtering: 'unknown', udp: 'blocked' }
  t.strictSame(await discoverNat({ servers: [], family: 4 }, never), unknown, 'no server')
  t.strictSame(await discoverNat({ servers: [at('::1', 1)], family: 4 }, never), unknown, 'none of the family')

  const started = performance.now()
  t.strictSame(await discoverNat({ servers: [at('127.0.0.1', 1)], family: 4 }, never), blocked, 'nobody answers')
  t.ok(performance.now() - started < 3000)

  const ending = new AbortController()
  setTimeout(() => ending.abort(), 20)
  t.strictSame(await discoverNat({ servers: [at('127.0.0.1', 1)], family: 4 }, ending.signal), unknown, 'ended')

  // Names another address that does not exist, and answers everything from where it stands.
  const liar = await fake((_request, _count, from) => ({
    xorMappedAddress: at(from.address, from.port),
    otherAddress: at('127.0.0.77', 9),
  }))
  t.strictSame(
    await discoverNat({ servers: [liar.address], family: 4, deadlineMs: 700 }, never),
    { mapping: 'none', filtering: 'unknown', udp: 'open' },
    'a server that ignores CHANGE-REQUEST',
  )
  liar.socket.close()
})
