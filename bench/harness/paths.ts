// Waits until the gateways of two pools of a lab are on a path, and shows what they are on if they do not get there.

import type { GatewayStatus, Rung } from '../../lib/status.ts'
import type { Lab } from '../../test/lab/lab.ts'

const TIMEOUT_MS = 30_000
const POLL_MS = 100

/**
 * @param interest what makes a pair come up: something is sent between the pools, again and again.
 * @returns how Fulmar does WireGuard here.
 */
export async function untilOn(
  lab: Lab,
  pools: readonly [string, string],
  rung: Rung,
  interest: () => Promise<unknown>,
  signal: AbortSignal,
): Promise<GatewayStatus['wireguard']['implementation']> {
  const deadline = AbortSignal.any([signal, AbortSignal.timeout(TIMEOUT_MS)])
  const [a, b] = pools
  for (;;) {
    await interest()
    const { daemons } = await lab.status()
    const gateways = daemons.flatMap(({ status }) => (status.kind === 'gateway' ? [status] : []))
    const isOn = (from: string, to: string): boolean =>
      gateways.some(({ pool, paths }) => pool === from && paths.some((path) => path.pool === to && path.rung === rung))
    if (isOn(a, b) && isOn(b, a)) return gateways[0]!.wireguard.implementation
    if (deadline.aborted) {
      const seen = gateways
        .filter(({ pool }) => pools.includes(pool))
        .flatMap(({ pool, paths }) => paths.map((path) => `${pool} to ${path.pool}: ${path.rung}, ${path.reason}`))
      throw new Error(
        `${a} and ${b} are not both on ${rung} within ${TIMEOUT_MS} ms: ${seen.join('; ') || 'no gateway answers'}`,
      )
    }
    await new Promise((resolve) => setTimeout(resolve, POLL_MS))
  }
}
