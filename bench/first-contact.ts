// How soon does the mesh stand, and what does its move from the relay to the direct path cost? Each round raises a lab of
// its own; times count from the start of the last gateway process.

import { findPairs, measureFirstContact } from '../test/lab/first-contact.ts'
import { readFolder } from '../test/lab/folder.ts'
import { openLab } from '../test/lab/lab.ts'
import { DIRECT_WITHIN_MS, FIRST_CALL_WITHIN_MS } from '../test/lab/timeline.ts'
import type { Series } from './harness/question.ts'

export const question: Series = {
  kind: 'series',
  text: 'How soon does the mesh stand, and what does its move from the relay to the direct path cost?',
  rounds: 10,
  figures: {
    relayedMs: { title: 'relayed', unit: 'ms' },
    firstCallMs: { title: 'first answered call', unit: 'ms', bound: FIRST_CALL_WITHIN_MS },
    directMs: { title: 'direct', unit: 'ms', bound: DIRECT_WITHIN_MS },
    lost: { title: 'packets lost over the switch, both ways', unit: '', bound: 0 },
    counted: { title: 'packets counted', unit: '' },
    relayedAfter: { title: 'data packets relayed after it', unit: '', bound: 0 },
  },
  run: async (progress, signal) => {
    await using lab = await openLab({ id: 'benchfirst', until: 'nodes' }, { signal })
    const { services, endpointSlices } = readFolder(lab.manifests)
    const { there, back, relayedMs, firstCallMs, directMs, relayedAfter } = await measureFirstContact(
      lab,
      findPairs(lab, services, endpointSlices, 4)[0]!,
      progress,
    )
    const lost = there.lost + back.lost
    const counted = there.received + back.received + lost
    progress(`relayed ${relayedMs} ms, first call ${firstCallMs} ms, direct ${directMs} ms, ${lost} of ${counted} lost`)
    return { relayedMs, firstCallMs, directMs, lost, counted, relayedAfter }
  },
}
