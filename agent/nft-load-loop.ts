// All services into a kernel that has no table: nobody has what would be missed meanwhile, so it is made empty, with room
// for all, and filled by netlink, some services at a time. That takes less time and far less memory than a script of all
// their elements, which nft reads as a whole.

import { EMPTY, SortedList } from '../lib/sorted-list.ts'
import type { ServiceFrontends } from './balance.ts'
import { applyElements, type NftWriters } from './nft-apply-loop.ts'
import { planChanges, type Loaded } from './nft-changes.ts'
import { elementReader } from './nft-fields.ts'
import { renderTable, type Rendered } from './nft-text.ts'
import type { Ruleset } from './nft.ts'

/**
 * Targets of the services that are one transaction, which is half a megabyte and 50 ms: what else waits for this thread, such
 * as a disk to be written, has its turn after each, and a hundred turns would take a second.
 */
const TARGETS = 6_000

/** The script of the table to be filled. */
export const renderEmpty = (wanted: Ruleset, marker: string): Rendered =>
  renderTable(wanted, marker, (object) => elementReader(object, wanted.family) !== undefined)

/**
 * Each service's endpoints come in the same transaction as what leads to them.
 * @param made what `renderEmpty` made.
 * @throws Error where one of the transactions failed.
 */
export async function fillTable(writers: NftWriters, wanted: Ruleset, made: Loaded): Promise<void> {
  const { family } = wanted
  let before: Loaded = { ...made, ruleset: { ...wanted, services: EMPTY } }
  let last: Promise<void> = Promise.resolve()
  for (const services of growing(wanted.services)) {
    const { changed, loaded } = planChanges(before, { ...wanted, services })!
    before = loaded
    const filled = applyElements(
      writers,
      family,
      changed.filter(({ object }) => elementReader(object, family) !== undefined),
    )
    // While the kernel takes them in, the next are made; should the ones before fail, it is told by those.
    filled.catch(() => undefined)
    await last
    last = filled
  }
  await last
}

/** The list in longer and longer parts, the last of which is all of it. */
function* growing({ pieces }: SortedList<ServiceFrontends>): Generator<SortedList<ServiceFrontends>> {
  let targets = 0
  for (const [i, piece] of pieces.entries()) {
    for (const { frontends } of piece) for (const frontend of frontends) targets += 1 + frontend.targets.length
    if (targets < TARGETS && i < pieces.length - 1) continue
    yield new SortedList(pieces.slice(0, i + 1))
    targets = 0
  }
}
