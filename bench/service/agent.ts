// The agent's service path as a process of its own, without the agent's other work: its nft rules, and its programs over
// them where it is told a group. Arguments: the node's podCIDR, and the group's folder or nothing.

import { balanceOf } from '../../agent/balance.ts'
import { clusterOf } from '../../agent/cluster.ts'
import { runNft } from '../../agent/nft-loop.ts'
import { runSocketLb } from '../../agent/socket-lb-loop.ts'
import { hereOf } from '../../agent/topology.ts'
import { createLog } from '../../lib/log.ts'
import { BPF_DIR } from '../../lib/owned.ts'
import { serve } from '../../test/lib/netns.ts'
import { clusterObjects, NODE } from './cluster.ts'

const [podCidr, group] = process.argv.slice(2)
const cluster = clusterOf(clusterObjects(podCidr!))
const here = hereOf(cluster, NODE)
const snapshot = { cluster, here, balance: balanceOf({ cluster, here }) }
const { signal } = new AbortController()
const log = createLog('agent', 'warn')
const nft = runNft({ snapshot: () => snapshot, takeovers: () => [], log }, signal)
await nft.idle()
const socketLb =
  group === undefined
    ? undefined
    : runSocketLb(
        {
          mode: 'bpf',
          group,
          folder: BPF_DIR,
          services: () => snapshot.balance.services,
          nodeAddresses: nft.nodeAddresses,
          except: () => [],
          excludedGroups: () => [],
          log,
        },
        signal,
      )
await socketLb?.idle()

serve({
  /** What serves, and all that is wrong. */
  state: () => ({
    path: socketLb?.path().kind ?? 'nft',
    problems: [...cluster.problems, ...snapshot.balance.problems, ...nft.problems(), ...(socketLb?.problems() ?? [])],
  }),
})
