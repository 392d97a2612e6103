// Brings changes into the kernel: rules and what leads to them by nft, elements by netlink.

import type { Family } from '../lib/cidr.ts'
import { encodeBatch, type ElementChange as EncodedChange } from '../lib/net/nft-batch.ts'
import { BATCH_BYTES_MAX, type NftElements } from '../lib/net/nft-elements.ts'
import type { NftSession } from '../lib/net/nft.ts'
import { NFT_TABLE_AGENT } from '../lib/owned.ts'
import type { Changes, ElementChange } from './nft-changes.ts'
import { elementReader } from './nft-fields.ts'
import { renderDropped, renderElementChanges, renderMade, type TableText } from './nft-text.ts'

export type NftWriters = {
  readonly nft: NftSession
  readonly elements: NftElements
}

/** Of a whole table; of IPv6 half of what fits. */
const BATCH_ELEMENTS = 800

/** @throws Error where one of the transactions failed, and with it those after it: what the kernel has is not known then. */
export async function applyChanges(writers: NftWriters, family: Family, changes: Changes): Promise<void> {
  await writers.nft.apply(renderMade(family, changes))
  await applyElements(writers, family, changes.changed)
  await applyElements(writers, family, changes.left)
  await writers.nft.apply(renderDropped(family, changes))
}

/** The whole table in place of what was there; where something of it comes later, that is added bit by bit. */
export async function loadTable({ nft, elements }: NftWriters, family: Family, table: TableText): Promise<void> {
  await nft.apply([table.script])
  let last = Promise.resolve()
  // One is made while the kernel is at work with the one before.
  for (const batch of batchesOf(family, table.later)) {
    await last
    last = elements.apply(batch)
  }
  await last
}

function* batchesOf(family: Family, objects: TableText['later']): Generator<Buffer> {
  for (const [object, texts] of objects) {
    const read = elementReader(object, family)!
    for (let at = 0; at < texts.length; at += BATCH_ELEMENTS) {
      const elements = texts.slice(at, at + BATCH_ELEMENTS).map((text) => {
        const [key = '', value = ''] = text.split(' : ')
        return read(key, value)
      })
      yield encodeBatch([{ kind: 'add', family, table: NFT_TABLE_AGENT, set: object, elements }])
    }
  }
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
