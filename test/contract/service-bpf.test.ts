// The contract of services against BPF with nft below it, as an agent has them.

import { readFileSync, statSync, writeFileSync } from 'node:fs'
import t from 'tap'
import { runNft, type ServiceSnapshot } from '../../agent/nft-loop.ts'
import { runSocketLb } from '../../agent/socket-lb-loop.ts'
import { BpfMap, shapeOf } from '../../lib/bpf/map.ts'
import { openPin } from '../../lib/bpf/pins.ts'
import { createLog } from '../../lib/log.ts'
import { addGroup, enterCage } from '../agent/cage.ts'
import { isRoot } from '../lib/netns.ts'
import { runContract } from './service-contract.ts'
import { buildWorld } from './service-world.ts'

const cage = isRoot ? enterCage('fmc-', import.meta.url) : undefined
if (!isRoot) t.test('needs root', { skip: true }, () => {})
if (cage !== undefined) {
  const world = await buildWorld(`fmc-${process.pid}`)
  // Other hosts' processes are not the node's.
  const node = `${cage.group}/node`
  const others = addGroup(cage, 'other')
  const elsewhere = (['far', 'outside'] as const).map((place) => statSync(`/run/netns/${world.namespaceOf(place)}`).ino)
  for (const pid of readFileSync(`${node}/cgroup.procs`, 'utf8').trim().split('\n'))
    if (elsewhere.includes(statSync(`/proc/${pid}/ns/net`).ino)) writeFileSync(`${others}/cgroup.procs`, pid)

  let current: ServiceSnapshot | undefined
  const controller = new AbortController()
  const log = createLog('test', process.env['LOG'] ?? 'silent')
  const nft = runNft({ snapshot: () => current, takeovers: () => [], log }, controller.signal)
  const folder = '/sys/fs/bpf/fulmar'
  const socketLb = runSocketLb(
    {
      mode: 'bpf',
      group: node,
      folder,
      services: () => current?.balance.services,
      nodeAddresses: nft.nodeAddresses,
      except: () => [],
      excludedGroups: () => [],
      log,
    },
    controller.signal,
  )
  await runContract(world, {
    name: 'BPF over nft',
    carriesPackets: true,
    atConnect: true,
    apply: async (snapshot) => {
      current = snapshot
      nft.trigger()
      await nft.idle()
      socketLb.trigger()
      await socketLb.idle()
      t.strictSame(nft.problems(), [], 'the kernel takes it')
      t.strictSame(socketLb.path(), { kind: 'bpf', reason: '' })
    },
  })
  const peers = openPin(`${folder}/peers`)!
  const served = new BpfMap('peers', shapeOf(peers).shape!, peers).keys().length
  t.ok(served > 500, `${served} calls went by BPF`)
  controller.abort()
  await Promise.all([nft.done, socketLb.done])
}
