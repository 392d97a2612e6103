import t from 'tap'
import { Netlink } from '../../../lib/net/netlink.ts'

t.test('a process that stands still after a request finds the answer when it goes on', async (t) => {
  const netlink = new Netlink()
  t.teardown(() => netlink.close())
  const devices = netlink.links()
  const hop = netlink.hopTo(4, '127.0.0.1', 0)
  // Requests wait for the end of a dump before, if there is none for a turn.
  await Promise.resolve()
  Atomics.wait(new Int32Array(new SharedArrayBuffer(4)), 0, 0, 6_500)
  t.match(await devices, [{ name: 'lo' }], 'devices')
  t.equal(await hop, undefined, 'a route')
})
