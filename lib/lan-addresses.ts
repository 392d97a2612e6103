// Where a member of the pool is on its LAN: one address of each family, so that either alone is enough.

import { familyOf } from './cidr.ts'
import type { PoolNode } from './k8s/pools.ts'

/** Link-local addresses are on every link: as InternalIP they say nothing. */
export const lanAddressesOf = ({ addresses }: PoolNode): readonly string[] =>
  ([4, 6] as const).flatMap(
    (family) => addresses.find((address) => familyOf(address) === family && !address.startsWith('fe80:')) ?? [],
  )
