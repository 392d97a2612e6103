// A token bucket: on average so many per second, and so many at once after a silence.

export type Bucket = { readonly take: (nowMs: number) => boolean }

export function createBucket(
  { perSecond, burst }: { readonly perSecond: number; readonly burst: number },
  nowMs: number,
): Bucket {
  let tokens = burst
  let atMs = nowMs
  return {
    take(now) {
      tokens = Math.min(burst, tokens + ((now - atMs) / 1000) * perSecond)
      atMs = now
      if (tokens < 1) return false
      tokens -= 1
      return true
    },
  }
}
