// What the cluster says of its pools, from disk at once and from the API as it comes, less what this node must reach
// without the mesh.

import { join } from 'node:path'
import { createApiClient } from '../lib/k8s/api-client.ts'
import { NODE_POOLS, NODES, RAVEN_GATEWAYS } from '../lib/k8s/objects.ts'
import type { Pool } from '../lib/k8s/pools.ts'
import { runStore } from '../lib/k8s/store-loop.ts'
import type { StoreView } from '../lib/k8s/store.ts'
import type { Log } from '../lib/log.ts'
import { apiClientOptions, type ApiAccess } from '../lib/net/api-access.ts'
import type { NodeIdentity } from '../lib/net/identity.ts'
import { followOutside, type OutsideOptions } from '../lib/net/outside.ts'
import type { IsInside } from './candidates.ts'
import { PoolView } from './pools.ts'

export type Pools = {
  readonly store: StoreView
  /** As they are now; the same value as before where nothing changed. */
  readonly list: () => readonly Pool[]
  /** Nodes that the cluster names now, with their UIDs. */
  readonly nodes: () => ReadonlyMap<string, string>
  /** Why objects, or parts of them, were left out. */
  readonly problems: () => readonly string[]
  /** By the pools as they were listed last. */
  readonly isInside: IsInside
  /** Resolves after the signal aborted, once the store is closed. */
  readonly done: Promise<unknown>
}

/** Resolves once the disk is read. */
export async function followPools(
  options: {
    readonly identity: NodeIdentity
    readonly access: ApiAccess
    readonly stateDir: string
    readonly sessions: NonNullable<OutsideOptions['sessions']>
    readonly onChange: () => void
    readonly log: Log
  },
  signal: AbortSignal,
): Promise<Pools> {
  const { identity, access, sessions, onChange, log } = options
  const store = await runStore(
    {
      resources: [NODES, NODE_POOLS, RAVEN_GATEWAYS],
      client: createApiClient(apiClientOptions(identity.server, identity, access)),
      file: join(options.stateDir, 'gateway', 'store.db'),
      log,
      onChange,
    },
    signal,
  )
  const outside = followOutside({ identity, sessions, onChange }, signal)
  const view = new PoolView()
  const look = () => {
    const [nodes, nodePools, gateways] = [store.list(NODES), store.list(NODE_POOLS), store.list(RAVEN_GATEWAYS)]
    return view.look({ nodes, nodePools, gateways }, outside.addresses)
  }
  return {
    store,
    list: () => look().pools,
    nodes: () => new Map(store.list(NODES).map(({ metadata }) => [metadata?.name ?? '', metadata?.uid ?? ''])),
    problems: () => look().problems,
    isInside: (address) => view.isInside(address),
    done: Promise.all([store.done, outside.done]),
  }
}
