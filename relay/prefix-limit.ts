// How many datagrams per second one network may have answered: a token bucket per IPv4 /24 or IPv6 /48, so that nobody
// is flooded through us by requests with a forged source.
//
// A table of fixed size instead of a map: networks that hash alike share a bucket, nothing is ever allocated or
// evicted, and a flood from a million sources finds the same number of buckets. The seed keeps others from choosing
// sources that share a victim's bucket.

export type PrefixLimit = {
  /** Sustained, per prefix. */
  readonly perSecond: number
  /** At once, after silence. */
  readonly burst: number
}

/** A power of two; 8 bytes each. */
const BUCKETS = 32_768

/**
 * @param seed any 32-bit number that others do not know.
 * @returns `admit(address, nowMs)`: true if a datagram from this address may be answered. Allocates nothing.
 */
export function createPrefixLimit(
  { perSecond, burst }: PrefixLimit,
  seed: number,
): (address: string, nowMs: number) => boolean {
  // For each bucket the time at which it is full again (the generic cell rate algorithm).
  const fullAt = new Float64Array(BUCKETS)
  const intervalMs = 1000 / perSecond
  const toleranceMs = (burst - 1) * intervalMs
  return (address, nowMs) => {
    const bucket = prefixHash(address, seed) & (BUCKETS - 1)
    const at = Math.max(fullAt[bucket]!, nowMs)
    if (at - nowMs > toleranceMs) return false
    fullAt[bucket] = at + intervalMs
    return true
  }
}

/** Hashes the first three bytes of an IPv4 address or the first three words of an IPv6 one, as the kernel writes them. */
export function prefixHash(address: string, seed: number): number {
  let hash = seed | 0
  let group = 0
  let groups = 0
  for (let i = 0; i < address.length && groups < 3; i++) {
    const code = address.charCodeAt(i)
    if (code === DOT || code === COLON) {
      hash = mix(hash, group)
      group = 0
      groups++
      // `::` stands for two zero words or more; what is left of the three is zero, which changes no hash below.
      if (code === COLON && address.charCodeAt(i + 1) === COLON) break
    } else group = group * 16 + hexDigit(code)
  }
  for (; groups < 3; groups++) hash = mix(hash, 0)
  return hash ^ (hash >>> 15)
}

const DOT = 0x2e
const COLON = 0x3a
const hexDigit = (code: number): number => (code & 0x0f) + (code > 0x40 ? 9 : 0)

/** One round of murmur3. */
function mix(hash: number, value: number): number {
  const scrambled = Math.imul(Math.imul(value, 0xcc9e2d51) ^ (value >>> 17), 0x1b873593)
  const turned = hash ^ scrambled
  return (Math.imul((turned << 13) | (turned >>> 19), 5) + 0xe6546b64) | 0
}
