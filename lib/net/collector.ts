// V8's collector of garbage, which it calls `gc` and hides.

import { setFlagsFromString } from 'node:v8'
import { runInNewContext } from 'node:vm'

type Collect = (options: object) => void
let gc: Collect | undefined

/** @param options of V8's gc(). @returns what collects so. */
export const collector = (options: object) => (): void => (gc ??= exposed())(options)

function exposed(): Collect {
  setFlagsFromString('--expose-gc')
  const found = runInNewContext('gc') as Collect
  setFlagsFromString('--no-expose-gc')
  return found
}
