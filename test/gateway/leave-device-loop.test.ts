// fm-leave: WireGuard inside another WireGuard device, of the kernel's or of wireguard-go, for the time of a hand-over.

import t from 'tap'
import { linkLocalOf } from '../../gateway/addresses.ts'
import { isRoot, until } from '../lib/netns.ts'
import { twoGateways } from './two-gateways.ts'

t.test('a device inside the rung in use', { skip: isRoot ? false : 'needs root' }, async (t) => {
  const { a, b, opened, close } = await twoGateways()
  t.teardown(close)
  const pingable = (name: string, device: string) =>
    a.host.sh(`ping -c 1 -W 0.5 ${linkLocalOf(name)}%${device}`).then(
      () => true,
      () => false,
    )
  const sent = async (): Promise<number> => {
    const [link] = JSON.parse(await a.host.sh('ip -s -j link show fm-direct')) as [
      { stats64: { tx: { packets: number } } },
    ]
    return link.stats64.tx.packets
  }
  t.comment(opened.map(({ implementation }) => implementation).join(', '))
  await until('packets pass on the rung', 5_000, () => pingable('b', 'fm-direct'))

  const port = await b.daemon.call('setLeavePeers', b.options, [{ ...a.peer, keepaliveSeconds: 0 }])
  t.ok(port > 0, 'it listens')
  const endpoint = `[${linkLocalOf('b')}%fm-direct]:${port}`
  await a.daemon.call('setLeavePeers', a.options, [{ ...b.peer, keepaliveSeconds: 0, endpoint }])
  await until('packets pass inside it', 5_000, () => pingable('b', 'fm-leave'))
  const before = await sent()
  t.ok(await pingable('b', 'fm-leave'))
  t.ok((await sent()) > before, 'on the rung')

  t.equal(await a.daemon.call('setLeavePeers', a.options, []), 0)
  await b.daemon.call('setLeavePeers', b.options, [])
  t.notMatch(await a.host.sh('ip link'), /fm-leave/, 'it goes')
  t.notMatch(await b.host.sh('ip link'), /fm-leave/)
  t.ok(await pingable('b', 'fm-direct'), 'and the rung stays')
})
