// One end of the tests behind NATs: a STUN server, a question, a discovery; called from the test (test/lib/netns.ts).

import { createSocket } from 'node:dgram'
import { socketAddress, type SocketAddress } from '../../lib/address.ts'
import { createLog } from '../../lib/log.ts'
import type { NatBehaviour } from '../../lib/status.ts'
import { decodeStun } from '../../lib/wire/stun.ts'
import { runCandidates, type Reachability } from '../../gateway/candidates-loop.ts'
import { discoverNat } from '../../gateway/nat-client.ts'
import { testHairpin } from '../../gateway/nat-hairpin-client.ts'
import { measureLifetime } from '../../gateway/nat-lifetime-client.ts'
import type { Lifetime } from '../../gateway/nat-lifetime.ts'
import { createStunClient } from '../../gateway/stun-client.ts'
import { runStunServer, type StunServer } from '../../relay/stun-server.ts'
import { serve } from '../lib/netns.ts'

export type Discovery = { readonly nat: NatBehaviour; readonly tookMs: number }

const PORTS = [3478, 3479] as const
const never = new AbortController().signal
const serverAt = (address: string) => {
  const server = socketAddress(address, PORTS[0])!
  return { servers: [server], family: server.family }
}
let server: StunServer | undefined
let reachability: Reachability | undefined
let ending = new AbortController()

serve({
  async startServer(addresses: readonly string[]): Promise<void> {
    ending = new AbortController()
    server = await runStunServer({ addresses, ports: PORTS, log: createLog('relay', 'silent') }, ending.signal)
  },
  async stopServer(): Promise<void> {
    ending.abort()
    await server?.closed
  },
  async discover(address: string): Promise<Discovery> {
    const startedAt = performance.now()
    const nat = await discoverNat(serverAt(address), never)
    return { nat, tookMs: performance.now() - startedAt }
  },
  async hairpin(address: string): Promise<{ readonly hairpin: boolean | undefined; readonly tookMs: number }> {
    const startedAt = performance.now()
    const hairpin = await testHairpin(serverAt(address), never)
    return { hairpin, tookMs: performance.now() - startedAt }
  },
  lifetime: (address: string, waitsMs?: readonly number[]): Promise<Lifetime | undefined> =>
    measureLifetime({ ...serverAt(address), ...(waitsMs && { waitsMs }) }, never),
  requests: () => server?.requests(),
  /** What a gateway does all the time, on the socket that stands for WireGuard's port. */
  async watch(address: string, wireguardPort: number): Promise<void> {
    const socket = createSocket('udp4')
    await new Promise<void>((done) => socket.bind(wireguardPort, done))
    const client = createStunClient((datagram, to) => socket.send(datagram, to.port, to.address, () => {}))
    socket.on('message', (datagram, from) => {
      const message = decodeStun(datagram)
      if (message) client.onMessage(message, socketAddress(from.address, from.port)!)
    })
    reachability = runCandidates(
      {
        port: () => wireguardPort,
        mappingNonce: Buffer.alloc(12, 7),
        stun: serverAt(address).servers,
        stunClient: client,
        isInside: () => false,
        onChange: () => {},
        log: createLog('gateway', 'silent'),
      },
      never,
    )
  },
  seen: () => ({ nat: reachability?.nat(), candidates: reachability?.candidates() }),
  async mapped(address: string, fromPort: number): Promise<SocketAddress | undefined> {
    const socket = createSocket('udp4')
    await new Promise<void>((done) => socket.bind(fromPort, done))
    const client = createStunClient((datagram, to) => socket.send(datagram, to.port, to.address))
    socket.on('message', (datagram, from) => {
      const message = decodeStun(datagram)
      if (message) client.onMessage(message, socketAddress(from.address, from.port)!)
    })
    const mapped = await client.request(socketAddress(address, PORTS[0])!, 1000)
    socket.close()
    return mapped
  },
})
