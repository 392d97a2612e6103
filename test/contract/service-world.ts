// A node in namespaces for the contract of services: pods `a`, `b` and `c` of its own, `far`, a pod of another pool behind
// its LAN, and `outside`, which belongs to no cluster. Callers run as long as the test, one in each namespace: a line of
// JSON in is a call, a line out is its answers.

import { execFileSync, spawn, type ChildProcess } from 'node:child_process'
import { createInterface } from 'node:readline'
import { setTimeout as sleep } from 'node:timers/promises'
import { fileURLToPath } from 'node:url'
import t from 'tap'
import type { Family } from '../../lib/cidr.ts'
import type { Node } from '../../lib/k8s/objects.ts'
import { addPod, ip } from '../agent/namespace.ts'
import { call as callOnce, startServer } from '../agent/peer.ts'

export type Place = 'a' | 'b' | 'c' | 'far' | 'outside' | 'node'
type Pair = Readonly<Record<Family, string>>

export const ADDRESSES: Readonly<Record<Place, Pair>> = {
  a: { 4: '10.244.1.2', 6: 'fd00:244:1::2' },
  b: { 4: '10.244.1.3', 6: 'fd00:244:1::3' },
  c: { 4: '10.244.1.4', 6: 'fd00:244:1::4' },
  far: { 4: '10.244.2.2', 6: 'fd00:244:2::2' },
  outside: { 4: '192.168.9.2', 6: 'fd00:9::2' },
  node: { 4: '192.168.9.1', 6: 'fd00:9::1' },
}
/** Of the node too, but no place for NodePorts. */
export const POD_GATEWAY: Pair = { 4: '10.244.1.1', 6: 'fd00:244:1::1' }
/** The node that each place is on. */
export const NODE_OF: Readonly<Record<Place, string>> = {
  ...{ a: 'h1', b: 'h1', c: 'h1', node: 'h1' },
  ...{ far: 's1', outside: 'none' },
}
export const NODES: readonly Node[] = [
  {
    metadata: { name: 'h1' },
    spec: { podCIDRs: ['10.244.1.0/24', 'fd00:244:1::/64'] },
    status: { addresses: [ADDRESSES.node[4], ADDRESSES.node[6]].map((address) => ({ type: 'InternalIP', address })) },
  },
  { metadata: { name: 's1' }, spec: { podCIDRs: ['10.244.2.0/24', 'fd00:244:2::/64'] } },
]
/** Where every server answers; `a` and `b` also do at SECOND_PORT, as `a2` and `b2`. */
export const PORT = 8080
export const SECOND_PORT = 8081

export type Call = {
  readonly protocol: 'tcp' | 'udp'
  readonly address: string
  readonly port: number
  readonly count: number
}
export type World = {
  /** What was answered, each once: `NAME ADDRESS` with the address that the server saw, or the code of an error. */
  readonly call: (from: Place, call: Call) => Promise<readonly string[]>
  readonly namespaceOf: (place: Place) => string | undefined
}

/** @param test the prefix of this test's namespaces. */
export async function buildWorld(test: string): Promise<World> {
  execFileSync('sysctl', ['-qw', 'net.ipv4.ip_forward=1', 'net.ipv6.conf.all.forwarding=1'])
  const names = new Map<Place, string>()
  for (const pod of ['a', 'b', 'c'] as const)
    names.set(
      pod,
      addPod(test, pod, [
        [ADDRESSES[pod][4], POD_GATEWAY[4]],
        [ADDRESSES[pod][6], POD_GATEWAY[6]],
      ]),
    )
  names.set(
    'outside',
    addPod(test, 'outside', [
      [ADDRESSES.outside[4], ADDRESSES.node[4]],
      [ADDRESSES.outside[6], ADDRESSES.node[6]],
    ]),
  )
  const far = addPod(test, 'far', [
    ['192.168.1.254', '192.168.1.1'],
    ['fd00:192::254', 'fd00:192::1'],
  ])
  names.set('far', far)
  for (const [address, via] of [
    [`${ADDRESSES.far[4]}/32`, '192.168.1.254'],
    [`${ADDRESSES.far[6]}/128`, 'fd00:192::254'],
  ] as const) {
    ip('-n', far, 'addr', 'add', address, 'dev', 'lo', ...(address.includes(':') ? ['nodad'] : []))
    ip('route', 'add', address, 'via', via)
    ip('route', 'add', 'default', 'via', via)
  }
  const servers = await Promise.all(
    (['a', 'b', 'c', 'far', 'node'] as const).flatMap((place) => [
      startServer(names.get(place), place, PORT),
      ...(place === 'a' || place === 'b' ? [startServer(names.get(place), `${place}2`, SECOND_PORT)] : []),
    ]),
  )
  const callers = new Map<Place, Caller>(
    (['a', 'b', 'c', 'far', 'outside', 'node'] as const).map((place) => [place, new Caller(names.get(place))]),
  )
  t.teardown(() => {
    for (const server of servers) server.kill()
    for (const caller of callers.values()) caller.end()
  })
  const call: World['call'] = (from, asked) => callers.get(from)!.call(asked)
  // Neighbours are looked for before links are up, and for IPv6 not again within a second.
  for (const place of ['a', 'b', 'c', 'far'] as const)
    for (const family of [4, 6] as const)
      for (const from of ['node', 'outside', 'c'] as const)
        for (let i = 0; i < 40; i++) {
          const asked = { protocol: 'tcp', address: ADDRESSES[place][family], port: PORT, count: 1 } as const
          if ((await call(from, asked))[0]!.startsWith(`${place} `)) break
          await sleep(100)
        }
  return { call, namespaceOf: (place) => names.get(place) }
}

class Caller {
  readonly #child: ChildProcess
  readonly #waiting = new Map<number, (answers: readonly string[]) => void>()
  #count = 0

  constructor(namespace: string | undefined) {
    const file = fileURLToPath(import.meta.url)
    const enter = namespace === undefined ? [] : ['ip', 'netns', 'exec', namespace]
    const [program, ...args] = [...enter, process.execPath, file, 'caller']
    this.#child = spawn(program!, args, { stdio: ['pipe', 'pipe', 'inherit'] })
    createInterface({ input: this.#child.stdout! }).on('line', (line) => {
      const { id, answers } = JSON.parse(line) as { id: number; answers: readonly string[] }
      this.#waiting.get(id)?.(answers)
      this.#waiting.delete(id)
    })
  }

  call(call: Call): Promise<readonly string[]> {
    const id = ++this.#count
    this.#child.stdin!.write(`${JSON.stringify({ id, ...call })}\n`)
    return new Promise((resolve) => this.#waiting.set(id, resolve))
  }

  end(): void {
    this.#child.kill()
  }
}

/** Drops show by it; an answer takes a millisecond. */
const TIMEOUT_MS = 700

async function serveCalls(): Promise<void> {
  const answer = async (line: string): Promise<void> => {
    const { id, protocol, address, port, count } = JSON.parse(line) as Call & { id: number }
    const answers = new Set<string>()
    for (let i = 0; i < count; i++) answers.add(await callOnce(protocol, address, port, TIMEOUT_MS))
    console.log(JSON.stringify({ id, answers: [...answers].sort() }))
  }
  for await (const line of createInterface({ input: process.stdin })) void answer(line)
}

if (process.argv[1] === fileURLToPath(import.meta.url) && process.argv[2] === 'caller') await serveCalls()
