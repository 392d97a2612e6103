// What calls and what answers in a cage: targets at 10.244.1.2 to .5 and fd00:244:1::2 to ::5, the node's own address
// 192.168.7.1, and pods with networks of their own.

import { execFileSync, spawn } from 'node:child_process'
import { once } from 'node:events'
import { createServer } from 'node:net'
import { createInterface } from 'node:readline'
import { ip } from './namespace.ts'

type Test = { teardown(fn: () => unknown): unknown }

/** Targets answer on port 8080 with the address that was reached. */
export async function startTargets(t: Test): Promise<void> {
  for (let i = 2; i < 6; i++) {
    ip('addr', 'add', `10.244.1.${i}/32`, 'dev', 'lo')
    ip('addr', 'add', `fd00:244:1::${i}/128`, 'dev', 'lo', 'nodad')
  }
  ip('addr', 'add', '192.168.7.1/32', 'dev', 'lo')
  const server = createServer((socket) => {
    socket.on('error', () => undefined)
    socket.end(`${socket.localAddress!.replace('::ffff:', '')}\n`)
  })
  await new Promise<void>((resolve) => server.listen(8080, '::', resolve))
  t.teardown(() => server.close())
}

/** A network of its own with a cable to the node. @returns the words that run a program there. */
export async function addCagePod(t: Test, name: string, address: string): Promise<readonly string[]> {
  const holder = spawn('unshare', ['--net', 'sh', '-c', 'ip link set lo up && echo ready && cat'])
  t.teardown(() => holder.kill())
  await once(createInterface(holder.stdout), 'line')
  const enter = ['nsenter', `--net=/proc/${holder.pid}/ns/net`]
  ip('link', 'add', name, 'type', 'veth', 'peer', 'name', 'eth0', 'netns', `${holder.pid}`)
  ip('link', 'set', name, 'up')
  ip('route', 'add', address, 'dev', name)
  for (const line of [
    `addr add ${address} dev eth0`,
    'link set eth0 up',
    'route add 10.244.1.0/24 dev eth0',
    'route add 192.168.7.1 dev eth0',
  ])
    execFileSync(enter[0]!, [...enter.slice(1), 'ip', ...line.split(' ')])
  return enter
}

/** The words that run a program in a group. */
export const inGroup = (group: string): readonly string[] => [
  'sh',
  '-c',
  `echo 0 > ${group}/cgroup.procs && exec "$@"`,
  'sh',
]
