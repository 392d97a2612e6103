// A service proxy in userspace as a process of its own: Node's streams copy what comes to an endpoint and back. It listens
// on the service's address and prints a line once it does.

import { once } from 'node:events'
import { connect, createServer } from 'node:net'
import { ENDPOINTS, PORTS, SERVICE } from './cluster.ts'

let turn = 0
for (const { service, endpoint } of Object.values(PORTS)) {
  const server = createServer({ noDelay: true, allowHalfOpen: true }, (socket) => {
    const host = ENDPOINTS[turn++ % ENDPOINTS.length]!
    const upstream = connect({ host, port: endpoint, noDelay: true, allowHalfOpen: true })
    socket.on('error', () => upstream.destroy())
    upstream.on('error', () => socket.destroy())
    socket.pipe(upstream)
    upstream.pipe(socket)
  })
  server.listen(service, SERVICE.clusterIp)
  await once(server, 'listening')
}
process.stdout.write('listening\n')
