// A lab has tens of machines on a few processors: a wireguard-go that wakes a thread for each would spend them on that.

import { writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { find } from '../../lib/net/preflight.ts'
import type { Lab } from './lab.ts'
import { pathsOf } from './names.ts'

/** For `LabOptions.prepare`: each wireguard-go of the lab runs Go code on one thread. */
export async function smallMachines({ id }: Pick<Lab, 'id'>): Promise<void> {
  const program = find('wireguard-go')
  if (program === undefined) return
  const script = `#!/bin/bash\nexport GOMAXPROCS=1\nexec -a wireguard-go ${program} "$@"\n`
  writeFileSync(join(pathsOf(id).programs, 'wireguard-go'), script, { mode: 0o755 })
}
