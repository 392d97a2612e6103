// The agent's DNS on real sockets for its tests, asked with dns-packet: a zone with a few services, a server of it, and an
// upstream whose answers the test decides.

import { createSocket } from 'node:dgram'
import { connect, createServer } from 'node:net'
import { setTimeout as sleep } from 'node:timers/promises'
import packet from 'dns-packet'
import type { Test } from 'tap'
import { clusterOf } from '../../agent/cluster.ts'
import { runDnsServer, type DnsServer } from '../../agent/dns-server.ts'
import { openUpstream } from '../../agent/dns-upstream-client.ts'
import { zoneOf } from '../../agent/dns-zone.ts'
import { parseStubs } from '../../agent/resolv-conf.ts'
import { hereOf } from '../../agent/topology.ts'
import { createLog } from '../../lib/log.ts'

export type Message = {
  id: number
  rcode: string
  flag_tc: boolean
  flag_aa: boolean
  questions: { name: string; type: string }[]
  answers: { name: string; type: string; ttl: number; data: unknown }[]
  additionals: { name: string; type: string; ttl: number; data: unknown }[]
  authorities: { name: string; type: string; ttl: number; data: unknown }[]
}
export const decode = (bytes: Buffer) => packet.decode(bytes) as unknown as Message

const log = createLog('test', 'silent')
/** The endpoints of the headless service shop/many. */
export const many = Array.from({ length: 120 }, (_, i) => `10.244.3.${i + 1}`)
const cluster = clusterOf({
  services: [
    { metadata: { namespace: 'shop', name: 'web' }, spec: { clusterIP: '10.96.0.5' } },
    { metadata: { namespace: 'shop', name: 'many' }, spec: { clusterIP: 'None' } },
    {
      metadata: { namespace: 'shop', name: 'vendor' },
      spec: { type: 'ExternalName', externalName: 'api.example.com' },
    },
  ],
  slices: [
    {
      metadata: { namespace: 'shop', name: 'many', labels: { 'kubernetes.io/service-name': 'many' } },
      addressType: 'IPv4',
      endpoints: many.map((address) => ({ addresses: [address] })),
      ports: [],
    },
  ],
  nodes: [],
  nodePools: [],
  gateways: [],
})
const zone = zoneOf({ cluster, here: hereOf(cluster, 'h1'), domains: ['cluster.local'], servers: [] })

let lastPort = 20_000 + (process.pid % 10_000)
/** A server with upstreams; ends with the test. */
export async function start(
  t: Test,
  servers: readonly string[],
  resolvConf = '/nonexistent',
  stubs = '',
): Promise<{ port: number; dns: DnsServer; address: string }> {
  const controller = new AbortController()
  const port = ++lastPort
  const upstream = openUpstream({ servers, resolvConf, stubs: parseStubs(stubs), except: () => [] }, controller.signal)
  const dns = runDnsServer(
    { addresses: ['127.0.0.1', '::1'], port, ensureAddress: async () => undefined, zone: () => zone, upstream, log },
    controller.signal,
  )
  while (dns.listening().length < 2) await sleep(5)
  t.teardown(async () => {
    controller.abort()
    await dns.done
  })
  return { port, dns, address: '127.0.0.1' }
}

export type Question = {
  name: string
  type?: string
  edns?: number
  id?: number
  flags?: number
  opcode?: string
  class?: string
}
export const encode = ({ name, type = 'A', edns, id = 7, flags = RECURSION_DESIRED, ...rest }: Question) =>
  packet.encode({
    type: 'query',
    id,
    flags,
    questions: [{ name, type, class: rest.class ?? 'IN' }],
    additionals: edns === undefined ? [] : [{ type: 'OPT', name: '.', udpPayloadSize: edns, flags: 0, options: [] }],
    ...rest,
  })
const RECURSION_DESIRED = 0x100

export async function udp(
  port: number,
  message: Buffer,
  address = '127.0.0.1',
  waitMs = 3_000,
): Promise<Message | undefined> {
  const socket = createSocket(address.includes(':') ? 'udp6' : 'udp4')
  const waited = new AbortController()
  try {
    socket.send(message, port, address)
    return await Promise.race([
      new Promise<Message>((resolve) => socket.on('message', (bytes) => resolve(decode(bytes)))),
      sleep(waitMs, undefined, { signal: waited.signal }),
    ])
  } finally {
    waited.abort()
    socket.close()
  }
}

/** All answers to what is written in pieces over one connection. */
export async function tcp(
  port: number,
  pieces: readonly Buffer[],
  answers: number,
  address = '127.0.0.1',
): Promise<Message[]> {
  const socket = connect(port, address).setNoDelay()
  const found: Message[] = []
  let received = Buffer.alloc(0)
  const done = (async () => {
    for await (const chunk of socket) {
      received = Buffer.concat([received, chunk as Buffer])
      while (received.length >= 2 && received.length >= 2 + received.readUInt16BE(0)) {
        found.push(decode(received.subarray(2, 2 + received.readUInt16BE(0))))
        received = received.subarray(2 + received.readUInt16BE(0))
      }
      if (found.length === answers) break
    }
  })()
  for (const piece of pieces) {
    socket.write(piece)
    if (pieces.length > 1) await sleep(10)
  }
  await done
  return found
}
export const framed = (message: Buffer) =>
  Buffer.concat([Buffer.from([message.length >> 8, message.length & 255]), message])

/** An upstream over UDP and TCP; `reply` returns undefined to stay silent. */
export async function upstreamServer(t: Test, reply: (query: Message, overTcp: boolean) => object | undefined) {
  const port = ++lastPort
  const seen: { id: number; port: number }[] = []
  const messages: Buffer[] = []
  const socket = createSocket('udp4')
  const response = (bytes: Buffer, overTcp: boolean): Buffer | undefined => {
    const query = decode(bytes)
    const answer = reply(query, overTcp)
    return (
      answer && packet.encode({ type: 'response', id: query.id, flags: 0x180, questions: query.questions, ...answer })
    )
  }
  socket.on('message', (bytes, from) => {
    seen.push({ id: bytes.readUInt16BE(0), port: from.port })
    messages.push(bytes)
    const message = response(bytes, false)
    if (message !== undefined) socket.send(message, from.port, from.address)
  })
  const server = createServer((client) => {
    client.on('error', () => undefined)
    client.on('data', (bytes: Buffer) => {
      const message = response(bytes.subarray(2), true)
      if (message !== undefined) client.write(framed(message))
    })
  })
  await new Promise<void>((resolve) => socket.bind(port, '127.0.0.1', resolve))
  await new Promise<void>((resolve) => server.listen(port, '127.0.0.1', resolve))
  let open = true
  const close = (): void => {
    if (open) socket.close()
    open = false
  }
  t.teardown(() => {
    close()
    server.close()
  })
  return { address: `127.0.0.1:${port}`, seen, messages, close }
}
