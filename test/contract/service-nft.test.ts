// The contract of services against the kernel's nft, in namespaces.

import t from 'tap'
import { runNft, type ServiceSnapshot } from '../../agent/nft-loop.ts'
import { createLog } from '../../lib/log.ts'
import { enterNamespace } from '../agent/namespace.ts'
import { runContract } from './service-contract.ts'
import { buildWorld } from './service-world.ts'

const test = enterNamespace('fms-', import.meta.url)
if (test !== undefined) {
  const world = await buildWorld(test)
  let current: ServiceSnapshot | undefined
  const controller = new AbortController()
  const loop = runNft(
    { snapshot: () => current, takeovers: () => [], log: createLog('test', process.env['LOG'] ?? 'silent') },
    controller.signal,
  )
  await runContract(world, {
    name: 'nft',
    carriesPackets: true,
    apply: async (snapshot) => {
      current = snapshot
      loop.trigger()
      await loop.idle()
      t.strictSame(loop.problems(), [], 'the kernel takes it')
    },
  })
  controller.abort()
  await loop.done
}
