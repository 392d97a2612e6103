// Whether packets of others than ours went through WireGuard to or from a peer between two looks at its counters. Pure.

/** Since the device was made: what WireGuard sent and received, and how much of that were echoes, bytes. */
export type Counters = {
  readonly wireguardBytes: number
  readonly echoBytes: number
  /** Unix milliseconds. */
  readonly latestHandshake: number | undefined
}

/** Keepalives of two sides, and an echo or two that are counted on one side of a look and carried on the other. */
const NOISE_BYTES = 400
/** Initiation, response and the keepalive that confirms it, once as begun by each side. */
const HANDSHAKE_BYTES = 2 * (148 + 92 + 32)

/** Flows of less than some 15 bytes per second, looked at each 30 s, are taken for silence. */
export function hasTraffic(before: Counters, after: Counters): boolean {
  // A device that was made anew counts from zero.
  if (after.wireguardBytes < before.wireguardBytes) return true
  const bytes = after.wireguardBytes - before.wireguardBytes - (after.echoBytes - before.echoBytes)
  return bytes > NOISE_BYTES + (after.latestHandshake === before.latestHandshake ? 0 : HANDSHAKE_BYTES)
}
