// Services of a node in a cage, carried as an agent carries them: by BPF for the node's own processes, with nft below it.

import { readFileSync, statSync, writeFileSync } from 'node:fs'
import t from 'tap'
import { runNft, type NftOptions } from '../../agent/nft-loop.ts'
import { runSocketLb } from '../../agent/socket-lb-loop.ts'
import { createLog } from '../../lib/log.ts'
import { BPF_DIR } from '../../lib/owned.ts'
import { addGroup, type Cage } from '../agent/cage.ts'
import type { World } from './service-world.ts'

export const log = createLog('test', process.env['LOG'] ?? 'silent')

export type Serving = {
  /** Resolves once new connections go by the snapshot, and fails the test if BPF does not serve them. */
  readonly apply: () => Promise<void>
  /** As an agent ends: what it loaded goes on. */
  readonly stop: () => Promise<void>
}

/** Callers on other hosts leave it: their processes are not the node's. @returns the node's cgroup. */
export function nodeGroupOf(cage: Cage, world: World): string {
  const node = `${cage.group}/node`
  const others = addGroup(cage, 'other')
  const elsewhere = (['far', 'outside'] as const).map((place) => statSync(`/run/netns/${world.namespaceOf(place)}`).ino)
  for (const pid of readFileSync(`${node}/cgroup.procs`, 'utf8').trim().split('\n'))
    if (elsewhere.includes(statSync(`/proc/${pid}/ns/net`).ino)) writeFileSync(`${others}/cgroup.procs`, pid)
  return node
}

export function serve(
  group: string,
  options: Pick<NftOptions, 'snapshot' | 'nodePortAddresses' | 'serviceCidrs'>,
): Serving {
  const controller = new AbortController()
  const nft = runNft({ ...options, takeovers: () => [], log }, controller.signal)
  const socketLb = runSocketLb(
    {
      mode: 'bpf',
      group,
      folder: BPF_DIR,
      services: () => options.snapshot()?.balance.services,
      nodeAddresses: nft.nodeAddresses,
      except: () => [],
      excludedGroups: () => [],
      log,
    },
    controller.signal,
  )
  return {
    apply: async () => {
      nft.trigger()
      await nft.idle()
      socketLb.trigger()
      await socketLb.idle()
      t.strictSame([nft.problems(), socketLb.path()], [[], { kind: 'bpf', reason: '' }], 'it serves')
    },
    stop: async () => {
      controller.abort()
      await Promise.all([nft.done, socketLb.done])
    },
  }
}
