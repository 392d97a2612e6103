// Maps of thousands of elements have a size in the kernel, and are loaded anew when they outgrow it.

import { execFileSync } from 'node:child_process'
import t from 'tap'
import { balanceOf } from '../../agent/balance.ts'
import { runNft } from '../../agent/nft-loop.ts'
import { hereOf } from '../../agent/topology.ts'
import { createLog } from '../../lib/log.ts'
import { enterNamespace } from './namespace.ts'
import { clusterWith, endpoint, service, slice } from './shop.ts'

if (enterNamespace('fmz-', import.meta.url) !== undefined)
  t.test('services outgrow their maps', async (t) => {
    const many = (count: number) => {
      const names = Array.from({ length: count }, (_, i) => [`web-${i}`, `10.97.${(i >> 8) + 1}.${i & 255}`] as const)
      return clusterWith({
        services: names.map(([name, clusterIP]) => service({ clusterIP }, { name })),
        slices: names.map(([name]) => slice({ of: name, name, endpoints: [endpoint(1, 'h1')] })),
      })
    }
    let cluster = many(4_200)
    const snapshot = () => {
      const here = hereOf(cluster, 'h1')
      return { cluster, here, balance: balanceOf({ cluster, here }) }
    }
    const life = new AbortController()
    const log = createLog('test', process.env['LOG'] ?? 'silent')
    const loop = runNft({ snapshot, takeovers: () => [], log }, life.signal)
    await loop.idle()
    const listed = (kind = 'map', object = 'services') =>
      execFileSync('nft', ['list', kind, 'ip', 'fulmar', object], { encoding: 'utf8' })
    const elements = () => listed().match(/: goto class-1/g)?.length
    t.match(listed(), /size 6300/)
    t.equal(elements(), 4_200)
    t.equal(listed('map', 'endpoints-1').match(/ : 10\.244\.0\.1 \. 8080/g)?.length, 4_200)
    t.equal(listed('set', 'cluster-ips').match(/10\.97\./g)?.length, 4_200)
    cluster = many(6_500)
    loop.trigger()
    await loop.idle()
    t.strictSame(loop.problems(), [])
    t.equal(elements(), 6_500)
    life.abort()
    await loop.done
  })
