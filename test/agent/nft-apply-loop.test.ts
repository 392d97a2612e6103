// Changes from one ruleset to the next, as a kernel has them afterwards.

import { execFileSync } from 'node:child_process'
import t from 'tap'
import { applyChanges } from '../../agent/nft-apply-loop.ts'
import { planChanges } from '../../agent/nft-changes.ts'
import { markerOf, renderTable } from '../../agent/nft-text.ts'
import type { Ruleset } from '../../agent/nft.ts'
import { createLog } from '../../lib/log.ts'
import { openNftSocket, type NftSocket } from '../../lib/net/nft-socket.ts'
import { openNft } from '../../lib/net/nft.ts'
import { usedElements } from './listed.ts'
import { enterNamespace } from './namespace.ts'
import { edge, ruleset, sticky, type RulesetParts } from './rulesets.ts'

const many = (first: number): RulesetParts => ({ endpoints: Array.from({ length: 120 }, (_, i) => first + i) })
const STATES: readonly { readonly name: string; readonly parts: RulesetParts }[] = [
  { name: 'an endpoint', parts: { endpoints: [4] } },
  { name: 'another', parts: { endpoints: [4, 5] } },
  { name: 'one of them replaced', parts: { endpoints: [4, 6] } },
  { name: 'prefixes of callers, affinity', parts: { endpoints: [4, 6], services: [edge, sticky] } },
  { name: 'affinity to another', parts: { endpoints: [4, 7], services: [edge, sticky] } },
  { name: 'without affinity', parts: { endpoints: [4, 7] } },
  { name: 'none', parts: { endpoints: [] } },
  { name: 'many', parts: many(10) },
  { name: 'many others', parts: many(100) },
]

if (enterNamespace('fmp-', import.meta.url) !== undefined) {
  const log = createLog('test', process.env['LOG'] ?? 'silent')
  const load = (wanted: Ruleset, serial: number) => {
    const { script, loaded } = renderTable(wanted, markerOf(wanted, serial))
    execFileSync('nft', ['-f', '-'], { input: `${script}\n` })
    return loaded
  }

  t.test('from one to the next', async (t) => {
    const life = new AbortController()
    const [nft, elements] = [openNft(life.signal, log), openNftSocket()]
    let batches = 0
    const counted: NftSocket = {
      ...elements,
      apply: (batch) => {
        batches++
        return elements.apply(batch)
      },
    }
    t.teardown(() => {
      life.abort()
      elements.close()
    })
    const whole = STATES.map(({ parts }, i) => {
      load(ruleset(parts), i)
      return usedElements(ruleset(parts))
    })
    let loaded = load(ruleset(STATES[0]!.parts), STATES.length)
    for (const [i, { name, parts }] of STATES.entries()) {
      const changes = planChanges(loaded, ruleset(parts))!
      await applyChanges({ nft, elements: counted }, 4, changes)
      loaded = changes.loaded
      t.strictSame(usedElements(ruleset(parts)), whole[i], name)
    }
    t.ok(batches >= STATES.length)
  })
}
