// Loaded into a daemon before its own code (node --import): on SIGUSR2 it frees what nobody refers to any more, so that what a
// load has left can be told from what V8 has not looked at yet.

import { collector } from '../../lib/net/collector.ts'
import { trimAllocated } from '../../lib/net/memory.ts'

const collect = collector({ type: 'major', execution: 'sync', flavor: 'last-resort' })

process.on('SIGUSR2', () => {
  collect()
  trimAllocated()
})
