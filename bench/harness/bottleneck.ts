// A narrow uplink for a site of a lab, both ways: token buckets (tc-tbf) on its router's way out and on the core's way in.

import { placeOf, execAt } from '../../test/lab/enter.ts'
import type { Lab } from '../../test/lab/lab.ts'
import { CORE } from '../../test/lab/names.ts'

/** As `tc qdisc add … tbf` takes it. */
export type Bottleneck = {
  readonly megabits: number
  readonly burst: string
  /** The longest that a packet waits in it, which sizes its queue. */
  readonly latency: string
}

const bottleneckText = ({ megabits, burst, latency }: Bottleneck): string =>
  `tbf rate ${megabits}mbit burst ${burst} latency ${latency}`

/** Replaces what was there. */
export async function narrow(lab: Lab, pool: string, bottleneck: Bottleneck): Promise<void> {
  const site = lab.topology.pools.find(({ name }) => name === pool)
  if (site?.router === undefined || site.uplink === undefined) throw new Error(`pool ${pool} has no uplink`)
  const ends: readonly (readonly [string, string])[] = [
    [site.router, 'wan'],
    [CORE, site.uplink],
  ]
  for (const [host, device] of ends) {
    const words = `tc qdisc replace dev ${device} root ${bottleneckText(bottleneck)}`.split(' ')
    const { code, stderr } = await execAt(lab.id, placeOf(lab.topology, host), words)
    if (code !== 0) throw new Error(`${host}: ${words.join(' ')}: ${stderr.trim()}`)
  }
}
