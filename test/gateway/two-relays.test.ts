// Gateways and two relays in one process: what one gateway says to another arrives once, whichever relay they share; packets
// go on by the other relay when one is gone.

import { createSocket, type Socket } from 'node:dgram'
import { setTimeout as wait } from 'node:timers/promises'
import t from 'tap'
import { openPacketClient, type PacketClient } from '../../gateway/packet-client.ts'
import { openSignalClient, type SignalClient } from '../../gateway/signal-client.ts'
import type { Replica } from '../../lib/replicas.ts'
import { runPacketServer } from '../../relay/packet-server.ts'
import { runSignalServer } from '../../relay/signal-server.ts'
import { runTlsServer } from '../../relay/tls-server.ts'
import { createMesh, log, type Mesh } from '../relay/mesh.ts'
import { until } from '../lib/until.ts'

type Relay = { readonly replica: Replica; readonly stop: () => Promise<void>; readonly udpRequests: string[] }
type Gateway = {
  readonly signal: SignalClient
  readonly packets: PacketClient
  /** There are other relays now. */
  readonly use: (replicas: readonly Replica[]) => void
  /** What came, as `call h1`. */
  readonly heard: string[]
  readonly told: Replica[][]
  /** Stands for WireGuard. */
  readonly wireguard: Socket
  readonly arrived: Buffer[]
}

const KEYS: Readonly<Record<string, string>> = { h1: 'A'.repeat(44), s1: 'B'.repeat(44) }
const INITIATION = Buffer.alloc(148, 1)
const data = (text: string): Buffer => Buffer.concat([Buffer.from([4, 0, 0, 0]), Buffer.from(text)])

async function startRelay(mesh: Mesh, name: string, replicas: () => readonly Replica[]): Promise<Relay> {
  const life = new AbortController()
  const signal = AbortSignal.any([mesh.signal, life.signal])
  const udpRequests: string[] = []
  const signals = await runSignalServer(
    {
      ...{ stateDir: `${mesh.stateDir}/${name}`, relay: name, mayReach: () => true, log },
      // Told when the first gateway comes.
      get replicas() {
        return replicas()
      },
      onUdpRequest: (from, to) => void udpRequests.push(`${from} ${to}`),
    },
    signal,
  )
  const packets = runPacketServer({ mayReach: () => true, log }, signal)
  const unused = (): never => {
    throw new Error('not in this test')
  }
  const tls = await runTlsServer(
    {
      ...{ listen: [{ address: '127.0.0.1', port: 0 }], certificate: mesh.server, log },
      authorityPem: mesh.authority.certificatePem,
      routes: {
        ...{ join: unused, api: unused },
        signal: signals.sessions.upgrade,
        packets: packets.sessions.upgrade,
      },
    },
    signal,
  )
  const closed = Promise.all([signals.closed, packets.closed, tls.closed]).then(() => undefined)
  mesh.holds(closed)
  return {
    replica: [`https://127.0.0.1:${tls.addresses[0]!.port}`],
    udpRequests,
    stop: () => {
      life.abort()
      return closed
    },
  }
}

async function startGateway(mesh: Mesh, node: string, peer: string, replicas: readonly Replica[]): Promise<Gateway> {
  const { certificatePem, keyPem } = await mesh.node(node)
  const identity = {
    ...{ node, certificatePem, keyPem, caPem: mesh.authority.certificatePem },
    ...{ relays: replicas.flat(), stun: [], server: '' },
  }
  const wireguard = createSocket('udp4')
  await new Promise<void>((resolve) => wireguard.bind(0, '127.0.0.1', resolve))
  mesh.signal.addEventListener('abort', () => wireguard.close())
  const arrived: Buffer[] = []
  wireguard.on('message', (packet) => arrived.push(packet))
  const heard: string[] = []
  const told: Replica[][] = []
  const listeners: (() => void)[] = []
  let current = replicas
  const relays = {
    current: () => current,
    told: (list: readonly Replica[]) => void told.push([...list]),
    onChange: (listener: () => void) => void listeners.push(listener),
  }
  const use = (list: readonly Replica[]): void => {
    current = list
    for (const listener of listeners) listener()
  }
  const hear =
    (kind: string) =>
    (from: string): void =>
      void heard.push(`${kind} ${from}`)
  const signal = openSignalClient(
    {
      ...{ identity, relays, log, digests: () => '', onOpen: () => undefined },
      onAnnounce: hear('announce'),
      onReady: hear('ready'),
      onCall: hear('call'),
      onUdpSession: ({ node: from }) => hear('udp-session')(from),
      onUdpEnd: hear('udp-end'),
    },
    mesh.signal,
  )
  const packets = openPacketClient(
    {
      ...{ identity, relays, log, wireguardPort: wireguard.address().port, wireguardKey: KEYS[node]! },
      onTraffic: () => undefined,
      onChange: () => undefined,
    },
    mesh.signal,
  )
  mesh.holds(signal.closed)
  mesh.holds(packets.closed)
  const count = Math.min(2, replicas.length)
  await until(() => signal.addresses().length === count && packets.addresses().length === count, `${node} connects`)
  const gateway = { signal, packets, use, heard, told, wireguard, arrived }
  endpoints.set(gateway, await packets.add(peer, KEYS[peer]!))
  return gateway
}
const endpoints = new Map<Gateway, string>()

/** As WireGuard sends to the peer. */
function send(from: Gateway, packet: Buffer): void {
  const [address, port] = endpoints.get(from)!.split(':') as [string, string]
  from.wireguard.send(packet, Number(port), address)
}

/** A relay learns of a gateway's peers by the way: what is sent before that is lost, as packets may be. */
async function passes(from: Gateway, to: Gateway, text: string): Promise<void> {
  await until(() => {
    send(from, data(text))
    return to.arrived.some((packet) => packet.includes(text))
  }, text)
}

async function start(t: Parameters<typeof createMesh>[0]) {
  const mesh = await createMesh(t)
  const all: Replica[] = []
  const relays = [await startRelay(mesh, 'r1', () => all), await startRelay(mesh, 'r2', () => all)] as const
  all.push(...relays.map(({ replica }) => replica))
  return { mesh, relays, all }
}

t.test('two relays: what is said is heard once, and packets pass', async (t) => {
  const { mesh, all, relays } = await start(t)
  const h1 = await startGateway(mesh, 'h1', 's1', all)
  const s1 = await startGateway(mesh, 's1', 'h1', all)
  await until(() => h1.told.length === 2, 'both relays tell of both')
  t.same(h1.told[0], all)
  t.ok(h1.signal.send({ kind: 'call', node: 's1', reply: false }))
  h1.signal.send({ kind: 'call', node: 's1', reply: true })
  h1.signal.send({ kind: 'ready', node: 's1', reply: false })
  await until(() => s1.heard.includes('ready h1'), 'the last of them')
  await wait(100)
  t.same(s1.heard, ['call h1', 'call h1', 'ready h1'])
  h1.signal.send({ kind: 'udp-request', node: 's1' })
  await until(() => relays[0].udpRequests.length === 1, 'the first is asked for UDP')
  await passes(h1, s1, 'there')
  await passes(s1, h1, 'and back')
  h1.packets.ready('s1')
  s1.packets.ready('h1')
  send(h1, INITIATION)
  await until(() => s1.arrived.some((packet) => packet.equals(INITIATION)), 'a handshake')
  await wait(100)
  t.equal(s1.arrived.filter((packet) => packet.equals(INITIATION)).length, 1, 'once, though it goes by both')
  t.equal(relays[1].udpRequests.length, 0)
})

t.test('a gateway that has one of them only is reached by that', async (t) => {
  const { mesh, all, relays } = await start(t)
  const h1 = await startGateway(mesh, 'h1', 's1', all)
  const s1 = await startGateway(mesh, 's1', 'h1', [all[1]!])
  h1.signal.send({ kind: 'call', node: 's1', reply: false })
  s1.signal.send({ kind: 'call', node: 'h1', reply: false })
  await until(() => s1.heard.includes('call h1') && h1.heard.includes('call s1'), 'calls')
  // Nothing was heard of the peer yet, so only the handshake goes by both.
  h1.packets.ready('s1')
  send(h1, INITIATION)
  await until(() => s1.arrived.length === 1, 'a handshake')
  await passes(s1, h1, 'back')
  await passes(h1, s1, 'there')
  h1.signal.send({ kind: 'udp-request', node: 's1' })
  await until(() => relays[1].udpRequests.length === 1, 'the second is asked, since the first does not have both')
  t.notOk(h1.heard.includes('udp-end s1'))
})

t.test('a relay dies, and all goes on by the other', async (t) => {
  const { mesh, all, relays } = await start(t)
  const h1 = await startGateway(mesh, 'h1', 's1', all)
  const s1 = await startGateway(mesh, 's1', 'h1', all)
  await passes(h1, s1, 'there')
  await passes(s1, h1, 'and back')
  await relays[0].stop()
  t.equal(h1.signal.state().state, 'connected')
  t.equal(h1.packets.state().state, 'connected')
  await passes(h1, s1, 'there again')
  await passes(s1, h1, 'and back again')
  h1.signal.send({ kind: 'call', node: 's1', reply: false })
  await until(() => s1.heard.includes('call h1'), 'a call')
})

t.test('relays come and go from the list', async (t) => {
  const { mesh, all } = await start(t)
  const h1 = await startGateway(mesh, 'h1', 's1', [all[0]!])
  h1.use(all)
  await until(() => h1.signal.addresses().length === 2 && h1.packets.addresses().length === 2, 'the second is dialled')
  h1.use([all[1]!])
  t.equal(h1.signal.addresses().length, 1, 'the first is left')
  t.equal(h1.signal.state().url, all[1]![0])
  t.equal(h1.signal.state().state, 'connected')
})
