// Ports for tests that must know them before somebody listens.

import { createSocket } from 'node:dgram'
import { once } from 'node:events'
import { createServer, type AddressInfo } from 'node:net'

/** Two UDP ports that are free on all addresses of both families. */
export async function freeUdpPorts(): Promise<readonly [number, number]> {
  const sockets = [createSocket('udp6'), createSocket('udp6')] as const
  for (const socket of sockets) await new Promise<void>((done) => socket.bind(0, done))
  const ports = [sockets[0].address().port, sockets[1].address().port] as const
  for (const socket of sockets) socket.close()
  return ports
}

/** TCP ports that are free on 127.0.0.1. */
export async function freeTcpPorts(count: number): Promise<readonly number[]> {
  const servers = Array.from({ length: count }, () => createServer().listen(0, '127.0.0.1'))
  await Promise.all(servers.map((server) => once(server, 'listening')))
  const ports = servers.map((server) => (server.address() as AddressInfo).port)
  await Promise.all(servers.map((server) => new Promise((resolve) => server.close(resolve))))
  return ports
}
