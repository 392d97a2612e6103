// A link with a delay, since this kernel has no netem: packets that the core routes from or to a site are led into a TUN
// device, held, and given back, from where they go on. Argument: JSON of Delay. Runs on the core; says `delaying` when it
// does. One loop of poll, read and write, without an event loop.

import { execFileSync } from 'node:child_process'
import { constants, openSync } from 'node:fs'
import { loadFfi } from '../../lib/net/ffi.ts'
import type { Lab } from './lab.ts'
import { CORE } from './names.ts'
import { CLOUD_BRIDGE } from './wiring.ts'

export type Delay = {
  /** Each way. */
  readonly ms: number
  /** The core's device towards the site, and that which others come by. */
  readonly uplink: string
  readonly others: string
  /** The site's own addresses. */
  readonly addresses: readonly string[]
  /** Tells several on one core apart. */
  readonly number: number
}

const TUNSETIFF = 0x4004_54can
const TUN_WITHOUT_HEADER = 0x1001
const IFREQ_BYTES = 40
const FLAGS_AT = 16
const POLLIN = 1
const PACKET_MAX_BYTES = 65_536
/** Packets held at a time; more are dropped, as by a router's queue. */
const HELD_MAX = 100_000
const COMPACT_AFTER = 1_024
const FIRST_TABLE = 7_000
const RULE_PRIORITY = 100
const SIGNATURES = {
  ioctl: { return: 'int32', arguments: ['int32', 'uint64', 'buffer'] },
  poll: { return: 'int32', arguments: ['buffer', 'uint64', 'int32'] },
  read: { return: 'int32', arguments: ['int32', 'buffer', 'uint64'] },
  write: { return: 'int32', arguments: ['int32', 'buffer', 'uint64'] },
} as const

/** Puts a site of a lab, which must be behind a NAT, so far away from everything; until the lab ends. */
export async function delaySite(lab: Lab, pool: string, ms: number): Promise<void> {
  const number = lab.topology.pools.findIndex(({ name }) => name === pool)
  const { uplink, wan = [] } = lab.topology.pools[number] ?? {}
  if (uplink === undefined) throw new Error(`pool ${pool}: no site of this name`)
  const delay: Delay = { ms, uplink, others: CLOUD_BRIDGE, addresses: wan, number }
  const child = lab.spawn(CORE, [process.execPath, import.meta.filename, JSON.stringify(delay)], {
    stdio: ['ignore', 'pipe', 'inherit'],
  })
  await new Promise<void>((resolve, reject) => {
    child.stdout!.once('data', () => resolve())
    child.once('exit', (code) => reject(new Error(`the delay of ${pool} ended with code ${code}`)))
  })
}

if (import.meta.main) run(JSON.parse(process.argv[2] ?? '{}') as Delay)

function run({ ms, uplink, others, addresses, number }: Delay): never {
  const c = loadFfi().dlopen(null, SIGNATURES).functions
  const device = `fmdelay${number}`
  const descriptor = openSync('/dev/net/tun', constants.O_RDWR | constants.O_NONBLOCK)
  const request = Buffer.alloc(IFREQ_BYTES)
  request.write(device)
  request.writeUInt16LE(TUN_WITHOUT_HEADER, FLAGS_AT)
  if (c.ioctl(descriptor, TUNSETIFF, request) !== 0) throw new Error('no TUN device can be had')
  route(device, FIRST_TABLE + number, uplink, others, addresses)
  process.stdout.write('delaying\n')

  const waiting = Buffer.alloc(8)
  waiting.writeInt32LE(descriptor, 0)
  waiting.writeInt16LE(POLLIN, 4)
  const packet = Buffer.alloc(PACKET_MAX_BYTES)
  const held: { readonly dueMs: number; readonly bytes: Buffer }[] = []
  let first = 0
  for (;;) {
    const next = held[first]
    c.poll(waiting, 1n, next === undefined ? -1 : Math.max(0, Math.ceil(next.dueMs - performance.now())))
    for (let length = c.read(descriptor, packet, BigInt(packet.length)); length > 0;) {
      if (held.length - first < HELD_MAX)
        held.push({ dueMs: performance.now() + ms, bytes: Buffer.from(packet.subarray(0, length)) })
      length = c.read(descriptor, packet, BigInt(packet.length))
    }
    const nowMs = performance.now()
    for (let due = held[first]; due !== undefined && due.dueMs <= nowMs; due = held[++first])
      c.write(descriptor, due.bytes, BigInt(due.bytes.length))
    if (first > COMPACT_AFTER) {
      held.splice(0, first)
      first = 0
    }
  }
}

/** What comes from the site, and what comes for it, takes the device; what comes out of that goes where it went before. */
function route(device: string, table: number, uplink: string, others: string, addresses: readonly string[]): void {
  const ip = (...args: readonly string[]) => execFileSync('ip', args, { stdio: ['ignore', 'ignore', 'inherit'] })
  ip('link', 'set', device, 'up', 'txqueuelen', '10000')
  for (const family of ['-4', '-6']) {
    ip(family, 'route', 'add', 'default', 'dev', device, 'table', String(table))
    const rule = (...match: readonly string[]) =>
      ip(family, 'rule', 'add', ...match, 'lookup', String(table), 'priority', String(RULE_PRIORITY))
    rule('iif', uplink)
    for (const address of addresses.filter((text) => text.includes(':') === (family === '-6')))
      rule('iif', others, 'to', address)
  }
}
