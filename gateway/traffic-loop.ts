// Looks now and then at WireGuard's counters of the pairs that are awake, and says which carried packets. What wakes a
// pair that is cold passes through the packet client, which tells by itself.

import type { Log } from '../lib/log.ts'
import { pause } from '../lib/net/lifetime.ts'
import { showDevices } from '../lib/net/wireguard.ts'
import { DEVICES } from '../lib/owned.ts'
import type { Rung } from '../lib/status.ts'
import type { Peer } from './peers.ts'
import { hasTraffic, type Counters } from './traffic.ts'

const LOOK_MS = 30_000
const LOOKS_PER_IDLE = 4
const LOOK_MIN_MS = 1_000

export async function runTraffic(
  options: {
    readonly coldAfterMs: number
    readonly awake: () => readonly Peer[]
    /** Whose devices there are. */
    readonly rungs: () => readonly Rung[]
    readonly echoBytes: (rung: Rung, linkLocal: string) => number
    readonly onTraffic: (node: string) => void
    readonly log: Log
  },
  signal: AbortSignal,
): Promise<void> {
  const { coldAfterMs, awake, rungs, echoBytes, onTraffic, log } = options
  const lookMs = Math.max(LOOK_MIN_MS, Math.min(LOOK_MS, coldAfterMs / LOOKS_PER_IDLE))
  let before: ReadonlyMap<string, Counters> = new Map()

  const look = async (): Promise<void> => {
    const peers = awake()
    const after = new Map<string, Counters>()
    const busy = new Set<string>()
    const devices = peers.length === 0 ? undefined : await showDevices(rungs().map((rung) => DEVICES[rung]))
    for (const rung of rungs()) {
      const seen = new Map(devices?.get(DEVICES[rung])?.peers.map((peer) => [peer.publicKey, peer]))
      for (const { node, wireguardKey, linkLocal } of peers) {
        const peer = seen.get(wireguardKey)
        if (peer === undefined) continue
        const key = `${rung} ${wireguardKey}`
        const counters = {
          wireguardBytes: peer.rx + peer.tx,
          echoBytes: echoBytes(rung, linkLocal),
          latestHandshake: peer.latestHandshake,
        }
        after.set(key, counters)
        const earlier = before.get(key)
        if (earlier !== undefined && hasTraffic(earlier, counters)) busy.add(node)
      }
    }
    before = after
    for (const node of busy) onTraffic(node)
  }

  while (!signal.aborted) {
    await pause(lookMs, signal)
    if (signal.aborted) return
    try {
      await look()
    } catch (err) {
      log.debug({ err }, 'WireGuard did not say which pairs carry packets')
    }
  }
}
