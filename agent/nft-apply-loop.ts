// Brings changes into the kernel: rules and what leads to them by nft, elements by netlink.

import type { Family } from '../lib/cidr.ts'
import { encodeBatch, type ElementChange as EncodedChange } from '../lib/net/nft-batch.ts'
import { BATCH_BYTES_MAX, type NftSocket } from '../lib/net/nft-socket.ts'
import type { NftSession } from '../lib/net/nft.ts'
import { NFT_TABLE_AGENT } from '../lib/owned.ts'
import type { Changes, ElementChange } from './nft-changes.ts'
import { elementReader } from './nft-fields.ts'
import { renderDropped, renderElementChanges, renderMade } from './nft-text.ts'

export type NftWriters = {
  readonly nft: NftSession
  readonly elements: NftSocket
}

/** @throws Error where one of the transactions failed, and with it those after it: what the kernel has is not known then. */
export async function applyChanges(writers: NftWriters, family: Family, changes: Changes): Promise<void> {
  await writers.nft.apply(renderMade(family, changes))
  await applyElements(writers, family, changes.changed)
  await applyElements(writers, family, changes.left)
  await writers.nft.apply(renderDropped(family, changes))
}

/** One transaction. */
async function applyElements(
  { nft, elements }: NftWriters,
  family: Family,
  changes: readonly ElementChange[],
): Promise<void> {
  if (changes.length === 0) return
  const encoded = encodedChanges(family, changes)
  const batch = encoded && encodeBatch(encoded)
  if (batch !== undefined && batch.length <= BATCH_BYTES_MAX) await elements.apply(batch)
  else await nft.apply(renderElementChanges(family, changes))
}

/** @returns undefined where nft must write one of them, and so all. */
function encodedChanges(family: Family, changes: readonly ElementChange[]): readonly EncodedChange[] | undefined {
  const removals: EncodedChange[] = []
  const additions: EncodedChange[] = []
  for (const { object, removed, added } of changes) {
    const read = elementReader(object, family)
    if (read === undefined) return undefined
    const common = { family, table: NFT_TABLE_AGENT, set: object }
    removals.push({ ...common, kind: 'delete', elements: removed.map((key) => read(key, '')) })
    additions.push({ ...common, kind: 'add', elements: [...added].map(([key, value]) => read(key, value)) })
  }
  return [...removals, ...additions]
}
