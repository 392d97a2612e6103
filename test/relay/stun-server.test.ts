import t from 'tap'
import { createSocket, type RemoteInfo, type Socket } from 'node:dgram'
import { once } from 'node:events'
import { setTimeout as pause } from 'node:timers/promises'
import { createLog } from '../../lib/log.ts'
import { decodeStun, encodeStun, type StunMessage } from '../../lib/wire/stun.ts'
import { runStunServer } from '../../relay/stun-server.ts'
import { freeUdpPorts } from '../lib/free-ports.ts'

const log = createLog('relay', 'silent')

async function client(address: string): Promise<Socket> {
  const socket = createSocket(address.includes(':') ? 'udp6' : 'udp4')
  await new Promise<void>((done) => socket.bind(0, address, done))
  return socket
}

const request: StunMessage = {
  class: 'request',
  method: 1,
  transactionId: Buffer.from('0102030405060708090a0b0c', 'hex'),
  classic: false,
  unknownAttributes: [],
}

async function ask(socket: Socket, datagram: Buffer, port: number, address: string) {
  const answer = once(socket, 'message', { signal: AbortSignal.timeout(2000) }) as Promise<[Buffer, RemoteInfo]>
  socket.send(datagram, port, address)
  const [bytes, from] = await answer
  return { message: decodeStun(bytes), from: `${from.address} ${from.port}` }
}

t.test('two addresses and two ports', async (t) => {
  const [p1, p2] = await freeUdpPorts()
  const end = new AbortController()
  const server = await runStunServer({ addresses: ['127.0.0.1', '127.0.0.2', '::1'], ports: [p1, p2], log }, end.signal)
  const socket = await client('127.0.0.1')
  t.teardown(() => socket.close())
  const mapped = { address: '127.0.0.1', port: socket.address().port, family: 4 }
  for (const [address, port, change, from] of [
    ['127.0.0.1', p1, [false, false], `127.0.0.1 ${p1}`],
    ['127.0.0.1', p1, [false, true], `127.0.0.1 ${p2}`],
    ['127.0.0.1', p1, [true, false], `127.0.0.2 ${p1}`],
    ['127.0.0.1', p1, [true, true], `127.0.0.2 ${p2}`],
    ['127.0.0.2', p2, [false, false], `127.0.0.2 ${p2}`],
    ['127.0.0.2', p2, [true, true], `127.0.0.1 ${p1}`],
  ] as const) {
    const datagram = encodeStun({ ...request, changeRequest: { address: change[0], port: change[1] } })
    const answer = await ask(socket, datagram, port, address)
    t.equal(answer.from, from, `${address} ${port} asked to change ${change.join(' ')}`)
    t.match(answer.message, { class: 'success', xorMappedAddress: mapped })
  }

  const v6 = await client('::1')
  t.teardown(() => v6.close())
  const mapped6 = { address: '::1', port: v6.address().port, family: 6 }
  t.match((await ask(v6, encodeStun(request), p1, '::1')).message, { class: 'success', xorMappedAddress: mapped6 })
  const refused = await ask(v6, encodeStun({ ...request, changeRequest: { address: true, port: true } }), p1, '::1')
  t.match(refused.message, { class: 'error', errorCode: { code: 420 } }, 'IPv6 has one address only')

  const third = await client('127.0.0.1')
  t.teardown(() => third.close())
  const redirected = once(third, 'message') as Promise<[Buffer, RemoteInfo]>
  socket.send(encodeStun({ ...request, responsePort: third.address().port }), p1, '127.0.0.1')
  t.match(decodeStun((await redirected)[0]), { class: 'success', xorMappedAddress: mapped }, 'RESPONSE-PORT')

  t.equal(server.requests(), 9)
  end.abort()
  await server.closed
  const again = new AbortController()
  const second = await runStunServer({ addresses: ['127.0.0.1'], ports: [p1, p2], log }, again.signal)
  again.abort()
  await second.closed
})

t.test('a flood from one network is answered in part, and another network in full', async (t) => {
  const ports = await freeUdpPorts()
  const end = new AbortController()
  const server = await runStunServer({ addresses: ['127.0.0.1'], ports, log }, end.signal)
  const flood = await client('127.0.0.1')
  const other = await client('127.9.9.9')
  let answers = 0
  flood.on('message', () => answers++)
  for (let i = 0; i < 400; i++) {
    flood.send(encodeStun(request), ports[0], '127.0.0.1')
    if (i % 50 === 0) await pause(5)
  }
  t.match((await ask(other, encodeStun(request), ports[0], '127.0.0.1')).message, { class: 'success' })
  await pause(50)
  t.ok(answers >= 100 && answers < 160, `${answers} of 400 were answered`)
  t.ok(server.limited() >= 240)
  flood.close()
  other.close()
  end.abort()
  await server.closed
})

t.test('what is wrong with the options is said with the flag that mends it', async (t) => {
  const ports = await freeUdpPorts()
  const taken = createSocket('udp4')
  await new Promise<void>((done) => taken.bind(ports[1], '127.0.0.1', done))
  t.teardown(() => taken.close())
  const rows: readonly (readonly [readonly string[], readonly [number, number], RegExp])[] = [
    [['127.0.0.1'], ports, new RegExp(`127\\.0\\.0\\.1:${ports[1]}/udp is in use by another process.*--stun-ports`)],
    [['192.0.2.1'], ports, /--stun 192\.0\.2\.1: no interface of this host has this address/],
    [['relay.example.org'], ports, /--stun relay\.example\.org: is no IP address/],
    [['127.0.0.1', '127.0.0.2', '127.0.0.3'], ports, /two IPv4 addresses at most/],
    [['0.0.0.0', '127.0.0.2'], ports, /name both addresses/],
    [['127.0.0.1'], [3478, 3478], /must differ/],
  ]
  for (const [addresses, pair, pattern] of rows) {
    const starting = runStunServer({ addresses, ports: pair, log }, AbortSignal.timeout(1000))
    await t.rejects(starting, { message: pattern, code: 'FULMAR_USAGE' }, addresses.join())
  }
  const free = createSocket('udp4')
  await new Promise<void>((done) => free.bind(ports[0], '127.0.0.1', done))
  free.close()
  t.pass('and sockets that were open before the failure are closed')
})
