// The contract of services against BPF with nft below it, as an agent has them.

import t from 'tap'
import type { ServiceSnapshot } from '../../agent/nft-loop.ts'
import { BpfMap, shapeOf } from '../../lib/bpf/map.ts'
import { openPin } from '../../lib/bpf/pins.ts'
import { BPF_DIR } from '../../lib/owned.ts'
import { enterCage } from '../agent/cage.ts'
import { isRoot } from '../lib/netns.ts'
import { runContract } from './service-contract.ts'
import { nodeGroupOf, serve } from './service-node.ts'
import { buildWorld } from './service-world.ts'

const cage = isRoot ? enterCage('fmc-', import.meta.url) : undefined
if (!isRoot) t.test('needs root', { skip: true }, () => {})
if (cage !== undefined) {
  const world = await buildWorld(`fmc-${process.pid}`)
  let current: ServiceSnapshot | undefined
  const ours = serve(nodeGroupOf(cage, world), { snapshot: () => current })
  await runContract(world, {
    name: 'BPF over nft',
    carriesPackets: true,
    atConnect: true,
    apply: (snapshot) => {
      current = snapshot
      return ours.apply()
    },
  })
  const peers = openPin(`${BPF_DIR}/peers`)!
  const served = new BpfMap('peers', shapeOf(peers).shape!, peers).keys().length
  t.ok(served > 500, `${served} calls went by BPF`)
  await ours.stop()
}
