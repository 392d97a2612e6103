// Numbers that look random and are the same in each run.

/** @param seed a positive integer. @returns numbers in [0, 1) (Park and Miller's generator). */
export function random(seed: number): () => number {
  let state = seed
  return () => {
    state = (state * 48_271) % 2_147_483_647
    return (state - 1) / 2_147_483_646
  }
}
