// The costs of changes at several sizes of a mesh as a table, how they grow, and which bounds they break.

import { bytesText, renderTable } from '../../lib/text-table.ts'
import { CHANGES, type Cost } from './changes.ts'

export type Sample = { readonly pools: number; readonly costs: readonly Cost[] }

export type Growth = {
  readonly kind: Cost['kind']
  /** Exponents of the number of pools: of messages, of bytes, and of the work of one gateway; undefined for what is nothing. */
  readonly messages: number | undefined
  readonly bytes: number | undefined
  readonly gatewayMs: number | undefined
}

/** The work of one gateway may grow with the number of pools, and not faster; the rest is sorting, caches and noise. */
const EXPONENT_MAX = 1.2
/** Times below this are left out, and where none comes to more than a few of them nothing is said of growth. */
const NOISE_MS = 1
const WORTH_MS = 5

/** @returns the exponent of the best power law through the points; undefined for fewer than two that are above `least`. */
export function exponentOf(points: readonly (readonly [x: number, y: number])[], least: number): number | undefined {
  const logs = points.filter(([, y]) => y > least).map(([x, y]) => [Math.log(x), Math.log(y)] as const)
  if (logs.length < 2) return undefined
  const mean = (i: 0 | 1) => logs.reduce((sum, log) => sum + log[i], 0) / logs.length
  const [x, y] = [mean(0), mean(1)]
  const covariance = logs.reduce((sum, log) => sum + (log[0] - x) * (log[1] - y), 0)
  const variance = logs.reduce((sum, log) => sum + (log[0] - x) ** 2, 0)
  return variance === 0 ? undefined : covariance / variance
}

export function growthOf(samples: readonly Sample[]): readonly Growth[] {
  return CHANGES.map(({ kind }) => {
    const points = (key: 'messages' | 'bytes' | 'gatewayMs') =>
      samples.map(({ pools, costs }) => [pools, costs.find((cost) => cost.kind === kind)![key]] as const)
    return {
      kind,
      messages: exponentOf(points('messages'), 0),
      bytes: exponentOf(points('bytes'), 0),
      gatewayMs: points('gatewayMs').some(([, ms]) => ms > WORTH_MS)
        ? exponentOf(points('gatewayMs'), NOISE_MS)
        : undefined,
    }
  })
}

/** @returns a sentence for each bound that is broken. */
export function shortfalls(samples: readonly Sample[], growth: readonly Growth[]): readonly string[] {
  const broken = samples.flatMap(({ pools, costs }) =>
    costs.flatMap(({ kind, messages, sessions, strayPairs, peers, ended }) => {
      const { messagesMax, peersMax } = CHANGES.find((change) => change.kind === kind)!
      const max = messagesMax(sessions)
      return [
        ...(messages > max ? [`${pools} pools, ${kind}: ${messages} messages, and ${max} are allowed`] : []),
        ...(ended.length > 0
          ? [`${pools} pools, ${kind}: the relay ended ${ended.length} sessions (${ended[0]})`]
          : []),
        ...(strayPairs > 0
          ? [`${pools} pools, ${kind}: ${strayPairs} pairs were touched that have no part in it`]
          : []),
        ...(peers > peersMax
          ? [`${pools} pools, ${kind}: a gateway planned ${peers} peers anew, not ${peersMax}`]
          : []),
      ]
    }),
  )
  const steep = growth.flatMap(({ kind, gatewayMs }) =>
    gatewayMs !== undefined && gatewayMs > EXPONENT_MAX
      ? [`${kind}: the work of a gateway grows with pools^${gatewayMs.toFixed(2)}, and ${EXPONENT_MAX} is allowed`]
      : [],
  )
  return [...broken, ...steep]
}

export function renderReport(samples: readonly Sample[], growth: readonly Growth[]): string {
  const right = { align: 'right' } as const
  const columns = [
    { title: 'change' },
    { title: 'pools', ...right },
    { title: 'messages', ...right },
    { title: 'bytes', ...right },
    { title: 'relay ms', ...right },
    { title: 'gateway ms', ...right },
    { title: 'all ms', ...right },
    { title: 'peers', ...right },
    { title: 'looks', ...right },
    { title: 'pairs', ...right },
  ]
  const rows = CHANGES.flatMap(({ kind }) => {
    const sizes = samples.map(({ pools, costs }, i) => {
      const cost = costs.find((each) => each.kind === kind)!
      return [
        i === 0 ? kind : '',
        String(pools),
        String(cost.messages),
        bytesText(cost.bytes),
        cost.relayMs.toFixed(1),
        cost.gatewayMs.toFixed(1),
        cost.totalMs.toFixed(0),
        String(cost.peers),
        cost.looks.toFixed(1),
        `${cost.pairs}${cost.strayPairs === 0 ? '' : ` (${cost.strayPairs} stray)`}`,
      ]
    })
    const grown = growth.find((each) => each.kind === kind)!
    const power = (exponent: number | undefined) => (exponent === undefined ? '-' : `^${exponent.toFixed(2)}`)
    return [
      ...sizes,
      ['', 'grows', power(grown.messages), power(grown.bytes), '', power(grown.gatewayMs), '', '', '', ''],
    ]
  })
  return `${renderTable(columns, rows, '', 132)}\n${LEGEND}`
}

const LEGEND = `messages, bytes  from the relay to all gateways
relay ms         of the relay, processor time
gateway ms       of one gateway that is not the one that changed, all loops; \`all ms\`: times the number of gateways
peers            planned anew by one gateway, at the most
looks            comparisons of a whole WireGuard device or routing table by one gateway
pairs            whose WireGuard peers or routes were touched, among the gateways that run in full
grows            with the number of pools to this power, best fit
`
