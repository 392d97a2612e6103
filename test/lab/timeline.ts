// How the demo shows what it measured, and what falls short of the figures that Fulmar stands for.

import type { FirstContact } from './first-contact.ts'

/** From the start of the last gateway process. */
export const FIRST_CALL_WITHIN_MS = 2_000
export const DIRECT_WITHIN_MS = 3_000
export const PACKETS_AFTER_MS = 1_000

/** @returns a line for each time that is longer than on a machine that has nothing else to do. */
export function slownessOf({ firstCallMs, directMs }: FirstContact): readonly string[] {
  const lines = [
    firstCallMs > FIRST_CALL_WITHIN_MS &&
      `first answered call after ${firstCallMs} ms, not within ${FIRST_CALL_WITHIN_MS}`,
    directMs > DIRECT_WITHIN_MS && `direct after ${directMs} ms, not within ${DIRECT_WITHIN_MS}`,
  ]
  return lines.filter((line) => line !== false)
}

/** @returns a line for each thing that must not be, however slow the machine is. */
export function verdictOf({ there, back, sourceKept, relayedAfter, pair }: FirstContact): readonly string[] {
  const faults = [
    there.lost > 0 &&
      `${there.lost} of ${there.received + there.lost} packets lost from ${pair.client.pool} to ${pair.server.pool}`,
    back.lost > 0 &&
      `${back.lost} of ${back.received + back.lost} packets lost from ${pair.server.pool} to ${pair.client.pool}`,
    !sourceKept && `the server did not see the client pod's own address ${pair.client.address}`,
    relayedAfter > 0 && `${relayedAfter} packets with data went over the relay after the switch`,
  ]
  return faults.filter((fault) => fault !== false)
}

export function renderTimeline(contact: FirstContact): string {
  const { pair, relayedMs, firstCallMs, directMs, firstCallTookMs, callMs, sourceKept, there, back, relayedAfter } =
    contact
  const { client, server } = pair
  const packets = (from: string, to: string, { received, lost }: FirstContact['there']) =>
    `${lost} of ${received + lost} packets lost from ${from} to ${to}`
  const events = [
    { atMs: 0, text: 'the last gateway process starts' },
    { atMs: relayedMs, text: `relayed: ${client.pool} and ${server.pool} reach each other through the relay` },
    {
      atMs: firstCallMs,
      text: `first call answered: ${client.host} → ${pair.service} (endpoints only in ${server.pool}), in ${firstCallTookMs.toFixed(1)} ms`,
    },
    { atMs: directMs, text: 'direct: hole punched, echo and full-size packet validated, route moved' },
  ]
  const lines = events
    .filter(({ atMs }) => !Number.isNaN(atMs))
    .toSorted((a, b) => a.atMs - b.atMs)
    .map(({ atMs, text }) => `${String(Math.round(atMs)).padStart(7)} ms  ${text}`)
  return [
    ...lines,
    '',
    `Over the switch, at 100 packets/s each way until 5 s after: ${packets(client.pool, server.pool, there)},`,
    `  ${packets(server.pool, client.pool, back)}; longest gaps ${there.longestGapMs} and ${back.longestGapMs} ms.`,
    `On the direct path a call takes ${callMs.toFixed(1)} ms, and the server sees ${sourceKept ? "the client pod's own address" : 'ANOTHER ADDRESS than the client pod has'}.`,
    `The relay forwarded ${relayedAfter} packets of data after the switch.`,
  ].join('\n')
}
