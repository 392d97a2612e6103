// Garbage collection when a test asks for it, so that what a process keeps can be told from what it has yet to give back.

import { setFlagsFromString } from 'node:v8'
import { runInNewContext } from 'node:vm'

setFlagsFromString('--expose-gc')
export const collectGarbage = runInNewContext('gc') as () => void
