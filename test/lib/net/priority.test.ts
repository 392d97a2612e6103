// A process of the data path comes before others, by itself and with its session.

import { existsSync } from 'node:fs'
import { join } from 'node:path'
import t from 'tap'
import { run } from '../../../lib/net/exec.ts'
import { isRoot } from '../netns.ts'

const MODULE = join(import.meta.dirname, '../../../lib/net/priority.ts')
const LOOK = `import { preferProcess } from '${MODULE}'
preferProcess()
console.log(os.getPriority(), fs.existsSync('/proc/self/autogroup') && fs.readFileSync('/proc/self/autogroup', 'utf8'))`

t.test('the niceness of a process', { skip: isRoot ? false : 'needs root' }, async (t) => {
  const said = await run('setsid', ['-w', process.execPath, '--input-type=module-typescript', '--eval', LOOK])
  t.match(said, /^-10 /, 'its own')
  if (existsSync('/proc/self/autogroup')) t.match(said, / nice -10$/m, 'and that of its session')
})
