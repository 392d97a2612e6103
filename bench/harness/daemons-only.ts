// A lab of many sites with a node each in which daemons run and no pods: the generated shop without some of its objects.

import { mkdtempSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { generateManifests } from '../../test/lab/manifests.ts'
import { CLOUD } from '../../test/lab/names.ts'

/** The sites of a mesh of so many pools; the cloud is one of them. */
export const siteNames = (pools: number): readonly string[] => Array.from({ length: pools - 1 }, (_, i) => `s${i + 1}`)
/** The only node of a pool. */
export const onlyNodeOf = (pool: string): string => (pool === CLOUD ? CLOUD : `${pool}-a`)

/** @param without kinds that are left out. @returns a new folder, which is the caller's to remove. */
export function writeSites(sites: readonly string[], without: readonly string[]): string {
  const directory = mkdtempSync(join(tmpdir(), 'fulmar-bench-'))
  const pools = sites.map((name) => ({ name, nodes: [onlyNodeOf(name)] }))
  for (const [name, yaml] of generateManifests({ pools }))
    writeFileSync(
      join(directory, name),
      yaml
        .split('---\n')
        .filter((text) => !without.includes(/^kind: (\w+)$/m.exec(text)?.[1] ?? ''))
        .join('---\n'),
    )
  return directory
}
