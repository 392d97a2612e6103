import { createSocket } from 'node:dgram'
import { once } from 'node:events'
import t from 'tap'
import { portError } from '../../../lib/net/port-error.ts'

t.test('who has the port, and what to do', async (t) => {
  const sockets = [createSocket('udp4'), createSocket('udp4')] as const
  t.teardown(() => sockets.forEach((socket) => socket.close()))
  sockets[0].bind(0, '127.0.0.1')
  await once(sockets[0], 'listening')
  const { port } = sockets[0].address()
  const refused = once(sockets[1], 'error')
  sockets[1].bind(port, '127.0.0.1')
  const [cause] = (await refused) as [Error]
  const error = portError('UDP', port, 'probes', 'choose another', cause)
  t.match(error, { code: 'FULMAR_USAGE', cause })
  t.equal(
    error.message,
    `UDP port ${port} for probes is in use by another process, which ss -ulnp 'sport = :${port}' names; end that, or choose another`,
  )
})

t.test('anything else', async (t) => {
  const cause = Object.assign(new Error('listen EACCES'), { code: 'EACCES' })
  t.equal(portError('TCP', 53, 'DNS on ::1', undefined, cause).message, 'TCP port 53 for DNS on ::1: listen EACCES')
})
