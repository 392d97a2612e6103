// UDP ports for tests.

import { createSocket } from 'node:dgram'

/** Two UDP ports that are free on all addresses of both families. */
export async function freeUdpPorts(): Promise<readonly [number, number]> {
  const sockets = [createSocket('udp6'), createSocket('udp6')] as const
  for (const socket of sockets) await new Promise<void>((done) => socket.bind(0, done))
  const ports = [sockets[0].address().port, sockets[1].address().port] as const
  for (const socket of sockets) socket.close()
  return ports
}
