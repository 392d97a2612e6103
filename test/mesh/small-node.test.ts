// A node with little memory: its agent and gateway start and serve calls under a bound on what both may have together,
// the pages of their program included, as on a machine where nothing else has it in memory.

import { execFileSync } from 'node:child_process'
import { mkdtempSync, rmSync } from 'node:fs'
import { join } from 'node:path'
import t from 'tap'
import { startCalls } from '../lab/first-contact.ts'
import { REPOSITORY } from '../lab/paths.ts'
import { lacksMemoryGroups, makeMemoryGroup } from '../lib/memory-group.ts'
import { failuresOf, openMesh, UNLESS_LONG, until } from './mesh.ts'

t.setTimeout(300_000)
const skip = lacksMemoryGroups() || UNLESS_LONG
const MB = 1e6
/** A machine of 512 MB has some 200 left beside kernel, kubelet and runtime. 128 are too few: their own pages come and go. */
const BOUNDS_MB = [512, 200]
const NODE = 'bay1'
const CALLS = 300

t.test('agent and gateway', { skip }, async (t) => {
  const group = makeMemoryGroup(`fm-small-${process.pid}`)
  const folder = mkdtempSync(join(REPOSITORY, 'node_modules/.cache/fulmar/small-'))
  t.teardown(() => {
    rmSync(folder, { recursive: true })
    group.close()
  })
  const lab = await openMesh(t, 'm', { pools: ['bay', 'cape'], nodes: 1 })
  let program = process.execPath
  for (const bound of BOUNDS_MB) {
    for (const daemon of ['agent', 'gateway'] as const) await lab.stop(NODE, daemon, 'SIGTERM')
    // Not read by anybody yet, and so not in anybody's memory.
    const [before, copy] = [program, join(folder, `node${bound}`)]
    execFileSync('dd', [`if=${process.execPath}`, `of=${copy}`, 'oflag=direct', 'bs=1M'], { stdio: 'ignore' })
    execFileSync('chmod', ['755', copy])
    program = copy
    group.setLimit(bound * MB)
    const died: string[] = []
    const stop = lab.onEvent((event) => {
      if (event.kind === 'died') died.push(`${event.daemon} on ${event.host}: ${event.signal ?? event.code}`)
    })
    const change = (command: readonly string[]) => command.map((word) => (word === before ? program : word))
    await group.around(() =>
      Promise.all((['agent', 'gateway'] as const).map((daemon) => lab.startAgain(NODE, daemon, change))),
    )
    const client = `${NODE}-client`
    const url = 'http://web-cape.shop.svc.cluster.local/'
    await until('a call', async () => (await lab.exec(client, ['curl', '-sf', '-m', '5', url])).code === 0)
    const calls = { url, family: 4, intervalMs: 10, timeoutMs: 5_000, successes: CALLS } as const
    const all = await startCalls(lab, client, calls).all
    stop()
    const { peak, anonymous, killed } = group.read()
    t.comment(
      `bound ${bound} MB: at most ${Math.round(peak / MB)} MB, ${Math.round(anonymous / MB)} of them of no file`,
    )
    t.same([died, killed], [[], 0], `nobody ends for want of memory in ${bound} MB`)
    t.same(failuresOf(all), [], `and none of ${all.length} calls fails`)
  }
})
