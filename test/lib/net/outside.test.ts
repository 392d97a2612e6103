import { networkInterfaces } from 'node:os'
import { setTimeout as sleep } from 'node:timers/promises'
import t, { type Test } from 'tap'
import type { Pool } from '../../../lib/k8s/pools.ts'
import { followOutside, type Outside, type OutsideOptions } from '../../../lib/net/outside.ts'

const pool = (node: string, ...podCidrs: readonly string[]): Pool => ({
  name: node,
  nodes: [{ name: node, addresses: [], podCidrs }],
  gateways: [node],
})
const pools = [pool('h1', '10.244.1.0/24'), pool('s1', '203.0.113.0/24', '2001:db8:1::/64', '10.244.2.0/24')]
const identity = { node: 'h1', relays: ['https://192.0.2.1'], stun: [], server: 'https://192.0.2.1:443' }

function follow(t: Test, options: Partial<OutsideOptions>): Outside {
  const life = new AbortController()
  const outside = followOutside({ identity, onChange: () => undefined, ...options }, life.signal)
  t.teardown(() => {
    life.abort()
    return outside.done
  })
  return outside
}
const routed = (outside: Outside, node: string, from = pools) =>
  outside.routable(from).pools.find(({ name }) => name === node)?.nodes[0]?.podCidrs
const ALL = pools[1]!.nodes[0]!.podCidrs

t.test('what holds the relay, a STUN server, the API or the end of a session is not routed', async (t) => {
  const rows: readonly { name: string; options: Partial<OutsideOptions>; without: string; problem: RegExp }[] = [
    {
      name: 'a relay by address',
      options: { identity: { ...identity, relays: ['https://203.0.113.7:8443'] } },
      without: '203.0.113.0/24',
      problem: /pool s1, node s1: podCIDR 203\.0\.113\.0\/24 holds 203\.0\.113\.7, the relay/,
    },
    {
      name: 'a STUN server over IPv6',
      options: { identity: { ...identity, stun: ['[2001:db8:1::7]:3478'] } },
      without: '2001:db8:1::/64',
      problem: /2001:db8:1::7, a STUN server/,
    },
    {
      name: 'the API',
      options: { identity: { ...identity, server: 'https://[2001:db8:1::8]:6443' } },
      without: '2001:db8:1::/64',
      problem: /2001:db8:1::8, the Kubernetes API/,
    },
    {
      name: 'where a session leads',
      options: { sessions: () => [undefined, '203.0.113.9'] },
      without: '203.0.113.0/24',
      problem: /203\.0\.113\.9, the relay/,
    },
  ]
  for (const { name, options, without, problem } of rows) {
    const outside = follow(t, options)
    t.strictSame(
      routed(outside, 's1'),
      ALL.filter((text) => text !== without),
      name,
    )
    t.match(outside.routable(pools).problems, [problem], name)
  }
  t.strictSame(follow(t, {}).routable(pools), { pools, problems: [] }, 'nothing else is left out')
})

t.test('a relay by name: all its addresses, once they are known, until others are', async (t) => {
  const changed = Promise.withResolvers<void>()
  let tries = 0
  const outside = follow(t, {
    identity: { ...identity, relays: ['https://relay.example:443'], server: 'https://relay.example:443' },
    onChange: () => changed.resolve(),
    lookup: async (name) => {
      t.equal(name, 'relay.example')
      if (++tries === 1) throw new Error('getaddrinfo EAI_AGAIN')
      return ['203.0.113.7', '2001:db8:1::7']
    },
  })
  t.strictSame(routed(outside, 's1'), ALL, 'a node that starts offline routes what it knows')
  await changed.promise
  t.strictSame(routed(outside, 's1'), ['10.244.2.0/24'])
  t.equal(tries, 2, 'one question for a name that is used twice')
})

t.test('an end while a lookup hangs', async (t) => {
  const life = new AbortController()
  const outside = followOutside(
    {
      identity: { ...identity, relays: ['https://relay.example'] },
      onChange: () => undefined,
      lookup: () => new Promise(() => undefined),
    },
    life.signal,
  )
  life.abort()
  t.equal(await Promise.race([outside.done.then(() => 'ended'), sleep(1_000, 'late')]), 'ended')
})

t.test('an address of this node is outside, unless it is among its own pods', async (t) => {
  const [own] = Object.values(networkInterfaces()).flatMap((infos) => infos ?? [])
  const prefix = `${own!.address}/${own!.family === 'IPv4' ? 32 : 128}`
  const outside = follow(t, {})
  t.strictSame(routed(outside, 's1', [pools[0]!, pool('s1', prefix)]), [])
  t.strictSame(routed(outside, 's1', [pool('h1', prefix), pool('s1', prefix)]), [prefix])
})
