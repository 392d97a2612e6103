// A site, the core and the cloud as three namespaces: how long packets take, and that none is lost.

import { spawn } from 'node:child_process'
import { once } from 'node:events'
import { join } from 'node:path'
import t from 'tap'
import { connect, createHost, isRoot } from '../lib/netns.ts'
import type { Delay } from './delay.ts'

const DELAY_MS = 40
const TARGETS = ['203.0.113.10', '2001:db8:1::10']

t.test('a site with a delay', { skip: isRoot ? false : 'needs root' }, async (t) => {
  const [site, core, cloud] = await Promise.all([createHost(), createHost(), createHost()])
  t.teardown(() => Promise.all([site, core, cloud].map((host) => host.close())))
  await connect('wan', [site, '198.18.1.2/24', '2001:db8:f::2/64'], [core, '198.18.1.1/24', '2001:db8:f::1/64'])
  await connect('lan', [core, '203.0.113.1/24', '2001:db8:1::1/64'], [cloud, '203.0.113.10/24', '2001:db8:1::10/64'])
  await core.sh('sysctl -qw net.ipv4.ip_forward=1 net.ipv6.conf.all.forwarding=1')
  for (const [host, v4, v6] of [
    [site, '198.18.1.1', '2001:db8:f::1'],
    [cloud, '203.0.113.1', '2001:db8:1::1'],
  ] as const)
    await host.sh(`ip route add default via ${v4} && ip -6 route add default via ${v6}`)
  // Neighbours are found, which takes IPv6 its time at first.
  for (const target of TARGETS) await site.sh(`ping -c 1 -W 5 ${target}`)
  const delay: Delay = {
    ms: DELAY_MS,
    uplink: 'wan',
    others: 'lan',
    addresses: ['198.18.1.2', '2001:db8:f::2'],
    number: 1,
  }
  const inCore = ['--target', String(core.pid), '--net', process.execPath]
  const child = spawn('nsenter', [...inCore, join(import.meta.dirname, 'delay.ts'), JSON.stringify(delay)], {
    stdio: ['ignore', 'pipe', 'inherit'],
  })
  t.teardown(() => child.kill('SIGKILL'))
  await once(child.stdout, 'data')
  for (const target of TARGETS) {
    const text = await site.sh(`ping -c 5 -i 0.05 -W 2 ${target}`)
    const [, lost] = / (\d+)% packet loss/.exec(text) ?? []
    const [, least] = /= ([\d.]+)\//.exec(text) ?? []
    t.equal(lost, '0', text)
    t.ok(Number(least) >= 2 * DELAY_MS && Number(least) < 3 * DELAY_MS, `${target}: ${least} ms`)
  }
  // From there to here it is the same, with a stream of full-sized packets.
  const bytes = 4 << 20
  const receiver = site.sh(`node -e "
    require('node:net').createServer((socket) => {
      let bytes = 0
      socket.on('data', (chunk) => (bytes += chunk.length)).on('end', () => { console.log(bytes); process.exit() })
    }).listen(7777)"`)
  const sender = `node -e "
    const dial = () => {
      const socket = require('node:net').connect(7777, '198.18.1.2', () => socket.end(Buffer.alloc(${bytes})))
      socket.on('error', () => setTimeout(dial, 50))
    }
    dial()"`
  await cloud.sh(sender)
  t.equal((await receiver).trim(), String(bytes))
})
