// A table that is filled, against one that is loaded by a script.

import { execFileSync } from 'node:child_process'
import t from 'tap'
import { planChanges } from '../../agent/nft-changes.ts'
import { applyChanges } from '../../agent/nft-apply-loop.ts'
import { fillTable, renderEmpty } from '../../agent/nft-load-loop.ts'
import { markerOf, renderTable } from '../../agent/nft-text.ts'
import { balanceOf } from '../../agent/balance.ts'
import { rulesetOf, type Ruleset } from '../../agent/nft.ts'
import { hereOf } from '../../agent/topology.ts'
import { createLog } from '../../lib/log.ts'
import { openNftSocket } from '../../lib/net/nft-socket.ts'
import { openNft } from '../../lib/net/nft.ts'
import { objectsOf, usedElements } from './listed.ts'
import { enterNamespace } from './namespace.ts'
import { edge, ruleset, sticky } from './rulesets.ts'
import { clusterWith, endpoint, service, slice } from './shop.ts'

/** More than one transaction takes. */
const SERVICES = 3_500

function manyServices(count: number): Ruleset {
  const names = Array.from({ length: count }, (_, i) => [`web-${i}`, `10.97.${(i >> 8) + 1}.${i & 255}`] as const)
  const cluster = clusterWith({
    services: names.map(([name, clusterIP]) => service({ clusterIP }, { name })),
    slices: names.map(([name], i) =>
      slice({ of: name, name, endpoints: Array.from({ length: i % 8 }, (_, j) => endpoint(j + 1, 'h1')) }),
    ),
  })
  const here = hereOf(cluster, 'h1')
  return rulesetOf({ cluster, here, balance: balanceOf({ cluster, here }), sources: [], nodeAddresses: [] }, 4)
}

if (enterNamespace('fmq-', import.meta.url) !== undefined) {
  const life = new AbortController()
  const writers = {
    nft: openNft(life.signal, createLog('test', process.env['LOG'] ?? 'silent')),
    elements: openNftSocket(),
  }
  t.teardown(() => {
    life.abort()
    writers.elements.close()
  })
  const rows: readonly { readonly name: string; readonly wanted: Ruleset; readonly next: Ruleset }[] = [
    { name: 'no services', wanted: ruleset({ endpoints: [] }), next: ruleset({ endpoints: [4] }) },
    {
      name: 'prefixes of callers, affinity',
      wanted: ruleset({ endpoints: [4, 6], services: [edge, sticky] }),
      next: ruleset({ endpoints: [4] }),
    },
    { name: 'many', wanted: manyServices(SERVICES), next: manyServices(SERVICES - 5) },
  ]
  for (const { name, wanted, next } of rows)
    t.test(name, async (t) => {
      const marker = markerOf(wanted, 1)
      const byScript = renderTable(wanted, marker)
      await writers.nft.apply([byScript.script])
      const [elements, objects] = [usedElements(wanted), objectsOf(wanted)]
      execFileSync('nft', ['delete', 'table', 'ip', 'fulmar'])

      const { script, loaded } = renderEmpty(wanted, marker)
      await writers.nft.apply([script])
      await fillTable(writers.elements, wanted)
      t.strictSame(usedElements(wanted), elements)
      t.strictSame(objectsOf(wanted), objects)
      t.strictSame(loaded, byScript.loaded)
      await applyChanges(writers, 4, planChanges(loaded, next)!)
      t.not(usedElements(next).length, 0, 'changes go on from there')
    })
  t.test('a transaction that fails is told', async (t) => {
    const wanted = manyServices(SERVICES)
    execFileSync('nft', ['delete', 'table', 'ip', 'fulmar'])
    await t.rejects(fillTable(writers.elements, wanted), /ENOENT/)
  })
}
