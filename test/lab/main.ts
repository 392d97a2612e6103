// `npm run lab -- COMMAND`: an Internet of network namespaces on this machine, with Fulmar in it.

import { enableCompileCache } from 'node:module'
import { endWithoutReader, UsageError } from '../../lib/net/lifetime.ts'
import { COMPILE_CACHE } from './paths.ts'

const EX_USAGE = 64

endWithoutReader()
try {
  // Halves the start of every command; it must come before the imports that it is for.
  enableCompileCache(COMPILE_CACHE)
  const { main } = await import('./commands.ts')
  process.exitCode = await main(process.argv.slice(2))
} catch (error) {
  const usage = error instanceof UsageError
  process.stderr.write(usage ? `${error.message.replaceAll(/^/gm, 'lab: ')}\n` : `lab: ${(error as Error).stack}\n`)
  process.exitCode = usage ? EX_USAGE : 1
}
