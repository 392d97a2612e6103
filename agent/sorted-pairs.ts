// What became of the items of a list, by comparing it with the list after it. Items that are the same value in both are not
// looked into, which is what makes a change among very many cheap.

/** Both sides are never undefined at once; `index` is that of `had`. */
export type Pair<T> = readonly [had: T | undefined, now: T | undefined, index: number]

/**
 * Pairs of items that compare as equal, and items that are in one list only. Where the lists are not in order, an item that
 * moved comes twice, as gone and as new.
 * @param onSame called in between for what is the same value in both: so many, from that index of `before` on.
 */
export function* sortedPairs<T>(
  before: readonly T[],
  after: readonly T[],
  compare: (a: T, b: T) => number,
  onSame?: (index: number, count: number) => void,
): Generator<Pair<T>> {
  let i = 0
  let j = 0
  while (i < before.length || j < after.length) {
    const same = countSame(before, i, after, j)
    if (same > 0) onSame?.(i, same)
    i += same
    j += same
    const had: T | undefined = before[i]
    const now: T | undefined = after[j]
    if (had === undefined && now === undefined) return
    const order = had === undefined ? 1 : now === undefined ? -1 : compare(had, now)
    yield [order <= 0 ? had : undefined, order >= 0 ? now : undefined, i]
    if (order <= 0) i++
    if (order >= 0) j++
  }
}

/** A function of its own, since it is compiled better than a generator. */
function countSame<T>(before: readonly T[], i: number, after: readonly T[], j: number): number {
  let n = 0
  while (i + n < before.length && before[i + n] === after[j + n]) n++
  return n
}
