// What time it is, at the least. A machine without a battery starts in 1970, or where it was switched off, and a site
// without the cloud has nobody to ask. But what our CA signed was signed before now: the latest of these dates is a floor,
// kept on disk, that no clock which was wrong once can have raised. Pure, but for the wall clock that it is given.

export type Clock = {
  /** Unix milliseconds: the wall clock, or the floor where that is behind it. */
  readonly now: () => number
  /** Whether the wall clock is known to be wrong: then only what is past is known, and not how much. */
  readonly isBehind: () => boolean
  /** Our CA dates something from then, Unix milliseconds. */
  readonly atLeast: (ms: number) => void
  readonly floorMs: () => number
}

/** Clocks differ by so much without being wrong; certificates are back-dated by as much. */
const TOLERANCE_MS = 5 * 60_000

/** @param onRaise the floor is another. */
export function createClock(floorMs: number, onRaise: (floorMs: number) => void, wall: () => number): Clock {
  let floor = floorMs
  const isBehind = (): boolean => wall() < floor - TOLERANCE_MS
  return {
    now: () => (isBehind() ? floor : wall()),
    isBehind,
    atLeast: (ms) => {
      if (!(ms > floor)) return
      floor = ms
      onRaise(ms)
    },
    floorMs: () => floor,
  }
}
