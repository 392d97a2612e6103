// All services into a kernel that has no table: nobody has what would be missed meanwhile, so it is made empty, with room
// for all, and filled by netlink, some services at a time. That takes less time and far less memory than a script of all
// their elements, which nft reads as a whole.

import type { Family } from '../lib/cidr.ts'
import { encodeBatch, type Element, type ElementChange } from '../lib/net/nft-batch.ts'
import type { NftSocket } from '../lib/net/nft-socket.ts'
import { NFT_TABLE_AGENT } from '../lib/owned.ts'
import type { ServiceFrontends } from './balance.ts'
import { elementReader, slotsReader } from './nft-fields.ts'
import { addRules, type Draft } from './nft-service.ts'
import { renderTable, type Rendered } from './nft-text.ts'
import type { Ruleset } from './nft.ts'

/**
 * Of one transaction, at least: a megabyte, which takes 50 ms. What else waits for this thread has its turn after each: while
 * lists are read or a disk is written, a hundred turns take a second.
 */
const ELEMENTS = 16_000

/** The script of the table to be filled. */
export const renderEmpty = (wanted: Ruleset, marker: string): Rendered =>
  renderTable(wanted, marker, (object) => elementReader(object, wanted.family) !== undefined)

/** Each service in one transaction with its endpoints. @throws Error where one failed. */
export async function fillTable(kernel: NftSocket, { services, family }: Ruleset): Promise<void> {
  let last: Promise<void> = Promise.resolve()
  for (const changes of transactionsOf(services, family)) {
    const filled = kernel.apply(encodeBatch(changes))
    // While the kernel takes these in, the next are made; should those before them fail, that is told.
    filled.catch(() => undefined)
    await last
    last = filled
  }
  await last
}

function* transactionsOf(services: Iterable<ServiceFrontends>, family: Family): Generator<readonly ElementChange[]> {
  let objects = new Map<string, Element[]>()
  let count = 0
  const add = (object: string, elements: readonly Element[]): void => {
    const own = objects.get(object)
    if (own === undefined) objects.set(object, [...elements])
    else own.push(...elements)
    count += elements.length
  }
  const reader = remembered((object) => elementReader(object, family))
  const readerOfSlots = remembered((map) => slotsReader(map, family))
  const draft: Draft = {
    set: (object, key, value) => {
      const read = reader(object)
      if (read !== undefined) add(object, [read(key, value)])
    },
    setSlots: (map, key, slots) => add(map, readerOfSlots(map)(key, slots)),
    // The table has them.
    sets: new Map(),
    chains: new Map(),
  }
  const changes = () =>
    [...objects].map(
      ([name, elements]) => ({ kind: 'add', family, table: NFT_TABLE_AGENT, set: name, elements }) as const,
    )
  for (const service of services) {
    addRules(draft, service, family)
    if (count < ELEMENTS) continue
    yield changes()
    objects = new Map()
    count = 0
  }
  if (count > 0) yield changes()
}

function remembered<T>(make: (object: string) => T): (object: string) => T {
  const made = new Map<string, T>()
  return (object) => {
    if (!made.has(object)) made.set(object, make(object))
    return made.get(object)!
  }
}
