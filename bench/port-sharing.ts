// What do the two rules by which probes share WireGuard's port cost a packet? A host sends UDP to another as fast as it can,
// both ports WireGuard's, with a stateful firewall on either side; a round counts what arrives without the gateway's table,
// with it on both hosts, and without it again. Outgoing packets meet the one rule, incoming ones the other.

import { gatewayTable } from '../gateway/port-sharing.ts'
import { NFT_TABLE_GATEWAY } from '../lib/owned.ts'
import { connect, createHost, type Host } from '../test/lib/netns.ts'
import { compareTriples, type Triple } from './harness/findings.ts'
import type { Study, StudyOptions, StudyReport } from './harness/question.ts'
import { medianOf } from './harness/statistics.ts'
import { trafficIn } from './harness/traffic-client.ts'

const PORTS = { wireguardPort: 51820, probePort: 51821, loopbackPort: 51822 }
const ADDRESSES = ['192.0.2.1', '192.0.2.2'] as const
/** A full packet of WireGuard's. */
const BYTES = 1412
const FLOOD = { skipMs: 200, ms: 800 }
const FIREWALL = `table inet firewall {
  chain input { type filter hook input priority 0; policy drop; ct state established,related accept; udp dport ${PORTS.wireguardPort} accept; }
  chain output { type filter hook output priority 0; policy accept; ct state established accept; }
}`

export const question: Study = {
  kind: 'study',
  text: 'What do the two rules of a shared WireGuard port cost a packet?',
  rounds: 20,
  run,
}

async function run({ rounds, progress, signal }: StudyOptions): Promise<StudyReport> {
  const hosts: Host[] = []
  try {
    for (let i = 0; i < 2; i++) hosts.push(await createHost())
    const [from, to] = hosts as [Host, Host]
    await connect('wire', [from, `${ADDRESSES[0]}/24`], [to, `${ADDRESSES[1]}/24`])
    for (const host of hosts) await host.sh(`echo '${FIREWALL}' | nft -f -`)
    const [sender, receiver] = [await trafficIn(from), await trafficIn(to)]
    await receiver.countDatagrams(PORTS.wireguardPort)

    const setTable = async (present: boolean): Promise<void> => {
      const script = present ? gatewayTable(PORTS) : `delete table inet ${NFT_TABLE_GATEWAY}`
      for (const host of hosts) await host.sh(`echo '${script}' | nft -f -`)
    }
    const measure = async (): Promise<number> => {
      const target = { address: ADDRESSES[1], port: PORTS.wireguardPort, from: PORTS.wireguardPort }
      const [perSecond] = await Promise.all([
        receiver.datagramsPerSecond(FLOOD),
        sender.flood({ ...target, bytes: BYTES, ms: FLOOD.skipMs + FLOOD.ms }),
      ])
      return perSecond
    }
    await measure()
    const triples: Triple[] = []
    for (let round = 1; round <= rounds; round++) {
      signal.throwIfAborted()
      const before = await measure()
      await setTable(true)
      const value = await measure()
      await setTable(false)
      triples.push({ before, value, after: await measure() })
      progress(
        `round ${round} of ${rounds}: ${[before, value, triples.at(-1)!.after].map(Math.round).join(', ')} packets/s`,
      )
    }
    const costsNs = triples.map(({ before, value, after }) => 1e9 / value - 2e9 / (before + after))
    const { low, high } = medianOf(costsNs)
    return {
      findings: [
        {
          name: 'portSharingPackets',
          title: 'port sharing: packets with the rules',
          unit: 'packets/s',
          ...compareTriples(triples),
        },
        {
          name: 'portSharingCost',
          title: 'port sharing: both rules, per packet',
          unit: 'ns',
          value: medianOf(costsNs).ratio,
        },
      ],
      notes: [
        `port sharing: ${rounds} rounds of without, with, without; per packet at 95 % between ${low.toFixed(0)} and ${high.toFixed(0)} ns, of ${(1e9 / medianOf(triples.map(({ before }) => before)).ratio).toFixed(0)} ns for sending and receiving one`,
      ],
    }
  } finally {
    for (const host of hosts) await host.close()
  }
}
