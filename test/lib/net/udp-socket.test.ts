import { createSocket } from 'node:dgram'
import t from 'tap'
import { bindUdp } from '../../../lib/net/udp-socket.ts'

t.test('is bound', async (t) => {
  const atOnce = createSocket({ type: 'udp4', lookup: (address, _options, callback) => callback(null, address, 4) })
  t.teardown(() => atOnce.close())
  await bindUdp(atOnce, 0)
  t.ok(atOnce.address().port > 0, 'also where the lookup answers at once')

  const loopback = createSocket('udp6')
  t.teardown(() => loopback.close())
  await bindUdp(loopback, 0, '::1')
  t.match(loopback.address(), { address: '::1' })
})

t.test('what fails is told, and the socket closed', async (t) => {
  const first = createSocket('udp4')
  t.teardown(() => first.close())
  await bindUdp(first, 0, '127.0.0.1')
  const second = createSocket('udp4')
  await t.rejects(bindUdp(second, first.address().port, '127.0.0.1'), { code: 'EADDRINUSE' })
  t.throws(() => second.close(), { code: 'ERR_SOCKET_DGRAM_NOT_RUNNING' })
})
