// How many packets per second does the relay's kernel forward between two gateways, next to plain routing on the same
// host? Gateways a and b are bound to a session of the real relay, as in the mesh; one floods the other through it. Plain
// routing is a second host between them, with a stateful firewall as routers have one, and no rules of ours: a round
// counts what arrives routed, relayed and routed again.

import { mkdtempSync, rmSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { fileURLToPath } from 'node:url'
import type { SocketAddress } from '../lib/address.ts'
import type { SignalFrame } from '../lib/wire/signal.ts'
import { connect, createHost, until, type Host, type Remote } from '../test/lib/netns.ts'
import { compareTriples, type Triple } from './harness/findings.ts'
import type { Study, StudyOptions, StudyReport } from './harness/question.ts'

const REMOTE = fileURLToPath(new URL('../test/relay/udp-remote.ts', import.meta.url))
const PLACES = { 4: '203.0.113.10' }
const PORTS = { first: 40000, last: 40019 }
/** WireGuard's, of both gateways. */
const GATEWAY_PORT = 5001
/** A full packet of WireGuard's. */
const BYTES = 1412
const FLOOD_MS = 1_000
const SESSION_TIMEOUT_MS = 5_000
const FIREWALL = `table inet firewall {
  chain forward { type filter hook forward priority 0; policy drop; ct state established,related accept; iifname \\"pa\\" accept; }
}`

export const question: Study = {
  kind: 'study',
  text: 'How many packets does the relay’s kernel forward, next to plain routing?',
  rounds: 20,
  run,
}

async function run({ rounds, progress, signal }: StudyOptions): Promise<StudyReport> {
  const hosts: Host[] = []
  const stateDir = mkdtempSync(join(tmpdir(), 'fulmar-bench-'))
  try {
    for (let i = 0; i < 4; i++) hosts.push(await createHost())
    const [relayHost, routerHost, hostA, hostB] = hosts as [Host, Host, Host, Host]
    await wire(relayHost, routerHost, hostA, hostB)
    const start = (host: Host): Promise<Remote> => host.start(REMOTE)
    const [relay, a, b] = [await start(relayHost), await start(hostA), await start(hostB)]
    const relayed = await openSession(stateDir, relay, a, b)
    const routed: SocketAddress = { address: '198.51.100.2', port: GATEWAY_PORT, family: 4 }

    const measure = async (to: SocketAddress): Promise<number> => {
      await b.call('count')
      const startMs = performance.now()
      await a.call('flood', to, BYTES, FLOOD_MS)
      const ms = performance.now() - startMs
      // What is in the receiver's buffer still arrives.
      await new Promise((resolve) => setTimeout(resolve, 50))
      return ((await b.call('count')) as number) / (ms / 1000)
    }
    await measure(routed)
    await measure(relayed)
    const triples: Triple[] = []
    for (let round = 1; round <= rounds; round++) {
      signal.throwIfAborted()
      const [before, value, after] = [await measure(routed), await measure(relayed), await measure(routed)]
      triples.push({ before, value, after })
      progress(`round ${round} of ${rounds}: ${[before, value, after].map(Math.round).join(', ')} packets/s`)
    }
    const { forwarder, unbound, lost } = await relay.call('status')
    return {
      findings: [
        {
          name: 'relayUdpPackets',
          title: `relay-udp: packets of ${BYTES} bytes`,
          unit: 'packets/s',
          ...compareTriples(triples),
          bound: { of: 'ratio', is: 'at least', limit: 0.9 },
        },
      ],
      notes: [
        `relay-udp: forwarded by the ${forwarder}, ${unbound} unbound and ${lost} lost; beside plain routing with a stateful firewall, ${rounds} rounds of routed, relayed, routed`,
      ],
    }
  } finally {
    for (const host of hosts) await host.close()
    rmSync(stateDir, { recursive: true })
  }
}

/** Each gateway has a way through the relay's host and one through a router that only routes. */
async function wire(relay: Host, router: Host, a: Host, b: Host): Promise<void> {
  await connect('ra', [relay, '192.0.2.1/24'], [a, '192.0.2.2/24'])
  await connect('rb', [relay, '192.0.3.1/24'], [b, '192.0.3.2/24'])
  await connect('pa', [router, '198.51.101.1/24'], [a, '198.51.101.2/24'])
  await connect('pb', [router, '198.51.100.1/24'], [b, '198.51.100.2/24'])
  for (const host of [relay, router]) await host.sh('echo 1 > /proc/sys/net/ipv4/ip_forward')
  await relay.sh(`ip addr add ${PLACES[4]}/32 dev lo`)
  await router.sh(`echo "${FIREWALL}" | nft -f -`)
  await a.sh('ip route add default via 192.0.2.1 && ip route add 198.51.100.0/24 via 198.51.101.1')
  await b.sh('ip route add default via 192.0.3.1 && ip route add 198.51.101.0/24 via 198.51.100.1')
}

/** Carries the control frames that a signal session would, until both gateways are bound. @returns where a sends to. */
async function openSession(stateDir: string, relay: Remote, a: Remote, b: Remote): Promise<SocketAddress> {
  await relay.call('startRelay', { stateDir, places: PLACES, ports: PORTS, userspace: false })
  const gateways: Readonly<Record<string, Remote>> = { a, b }
  for (const gateway of [a, b]) await gateway.call('openGateway', GATEWAY_PORT)
  await a.call('want', ['b'])
  await until('a session over UDP', SESSION_TIMEOUT_MS, async () => {
    for (const [from, gateway] of Object.entries(gateways))
      for (const to of await gateway.call('takeRequests')) await relay.call('request', from, to)
    for (const { node, frame } of (await relay.call('take')) as { node: string; frame: SignalFrame }[])
      await gateways[node]?.call('deliver', frame)
    const bound = await Promise.all([a, b].map((gateway) => gateway.call('endpoint')))
    return bound.every((endpoint) => endpoint !== undefined)
  })
  return a.call('endpoint')
}
