// The gateway's end of the tests of port mapping: asks the router, and tells what it has.

import { createSocket } from 'node:dgram'
import { once } from 'node:events'
import { runPortMapping, type PortMappings } from '../../gateway/port-mapping-client.ts'
import { formatSocketAddress } from '../../lib/address.ts'
import { createLog } from '../../lib/log.ts'
import { serve } from '../lib/netns.ts'

let mappings: PortMappings | undefined
let ending = new AbortController()
let port = 0

serve({
  /** @param nonce of an earlier life, hex. */
  start(wireguardPort: number, nonce: string, families: readonly number[]) {
    ending.abort()
    ending = new AbortController()
    port = wireguardPort
    mappings = runPortMapping(
      {
        port: () => port,
        nonce: Buffer.from(nonce, 'hex'),
        wants: (family) => families.includes(family),
        onChange: () => {},
        log: createLog('test', process.env['TEST_LOG_LEVEL'] ?? 'silent'),
      },
      ending.signal,
    )
  },
  stop: () => ending.abort(),
  mapped: () => mappings!.mapped().map(formatSocketAddress),
  look: () => mappings!.look(),
  move(wireguardPort: number) {
    port = wireguardPort
    mappings!.look()
  },
  /** Answers every datagram that comes to the port with the port and address that it came from. */
  async echo(at: number) {
    const socket = createSocket({ type: 'udp6' })
    socket.on('message', (_, { address, port }) => socket.send(`${address} ${port}`, port, address))
    socket.bind(at)
    await once(socket, 'listening')
  },
  /** @returns the answer of an echo; undefined when none comes in time. */
  async ask(address: string, at: number) {
    const socket = createSocket(address.includes(':') ? 'udp6' : 'udp4')
    const answer = new Promise<string | undefined>((resolve) => {
      socket.once('message', (message) => resolve(String(message)))
      setTimeout(resolve, 500, undefined)
    })
    socket.send('?', at, address)
    const text = await answer
    socket.close()
    return text
  },
})
