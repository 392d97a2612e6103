// What a study found, as a picture: each figure's ratio to its peer's with the interval of 95 %, over what the machine makes
// of equal sides. Figures of one metric (a title's words before its colon) share a panel and a logarithmic scale.

import type { Finding, StudyResult } from './findings.ts'
import type { Ratio } from './statistics.ts'

type Row = { readonly label: string; readonly ratio: Ratio; readonly same: Ratio | undefined }
type Panel = { readonly title: string; readonly rows: readonly Row[] }

const COLUMNS = 2
const [PANEL_WIDTH, LABEL_WIDTH, VALUE_WIDTH, GAP] = [400, 130, 50, 24] as const
const PLOT_WIDTH = PANEL_WIDTH - LABEL_WIDTH - VALUE_WIDTH
const [HEAD, ROW, FOOT] = [30, 20, 26] as const
const TICKS = [1 / 16, 1 / 8, 1 / 4, 1 / 2, 1, 2, 4, 8, 16]
/** Every scale reaches so far on both sides of 1, so that small differences look small. */
const LEAST_SPAN = 1.5

/** @returns an SVG document; findings without a ratio are left out. */
export function renderChart({ question, notes, findings }: StudyResult): string {
  const panels = panelsOf(findings)
  const heights = panels.map(({ rows }) => HEAD + rows.length * ROW + FOOT)
  const lines = Math.ceil(panels.length / COLUMNS)
  const lineHeights = Array.from({ length: lines }, (_, line) =>
    Math.max(...heights.slice(line * COLUMNS, (line + 1) * COLUMNS)),
  )
  const top = 56
  const tops = lineHeights.map((_, line) => top + sum(lineHeights.slice(0, line)))
  const width = COLUMNS * PANEL_WIDTH + (COLUMNS + 1) * GAP
  const height = top + sum(lineHeights) + 12
  const parts = panels.map((panel, index) =>
    at(GAP + (index % COLUMNS) * (PANEL_WIDTH + GAP), tops[Math.floor(index / COLUMNS)]!, renderPanel(panel)),
  )
  return `<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 ${width} ${height}" font-family="sans-serif" font-size="12">
<title>${escape(question)}</title>
<desc>${escape(notes.join('\n'))}</desc>
<rect width="${width}" height="${height}" fill="#ffffff"/>
<text x="${GAP}" y="24" font-size="15" font-weight="bold">${escape(question)}</text>
<text x="${GAP}" y="42" fill="#666666">ratio to the peer, with its 95 % interval; the grey band is what the machine makes of equal sides</text>
${parts.join('\n')}
</svg>
`
}

function panelsOf(findings: readonly Finding[]): readonly Panel[] {
  const panels = new Map<string, Row[]>()
  for (const { title, unit, ratio, same } of findings) {
    if (ratio === undefined || !(ratio.ratio > 0)) continue
    const [, metric = '', label = title] = /^([^:]*): (.*)$/.exec(title) ?? []
    const panel = metric === '' ? unit : `${metric}, ${unit}`
    const rows = panels.get(panel) ?? []
    panels.set(panel, rows)
    rows.push({ label, ratio, same })
  }
  return [...panels].map(([title, rows]) => ({ title, rows }))
}

function renderPanel({ title, rows }: Panel): string {
  const span = Math.max(LEAST_SPAN, ...rows.flatMap(({ ratio }) => endsOf(ratio).map((end) => Math.max(end, 1 / end))))
  const reach = Math.log(span * 1.1)
  const x = (ratio: number): string => (LABEL_WIDTH + (PLOT_WIDTH * (Math.log(ratio) / reach + 1)) / 2).toFixed(1)
  const bottom = HEAD + rows.length * ROW
  const ticks = TICKS.filter((tick) => Math.abs(Math.log(tick)) <= reach).map((tick) => {
    const colour = tick === 1 ? '#333333' : '#dddddd'
    const text = tick < 1 ? `1/${1 / tick}` : String(tick)
    return `<line x1="${x(tick)}" x2="${x(tick)}" y1="${HEAD - 4}" y2="${bottom}" stroke="${colour}"/><text x="${x(tick)}" y="${bottom + 13}" text-anchor="middle" fill="#666666" font-size="10">${text}</text>`
  })
  const middle = (index: number): number => HEAD + index * ROW + ROW / 2
  const bands = rows.map(({ same }, index) => {
    if (same === undefined) return ''
    const [left, right] = endsOf(same).map(x)
    const width = (Number(right) - Number(left)).toFixed(1)
    return `<rect x="${left}" width="${width}" y="${middle(index) - 8}" height="16" fill="#e4e4e4"/>`
  })
  const lines = rows.map(({ label, ratio }, index) => {
    const y = middle(index)
    const [low, high] = endsOf(ratio)
    return [
      `<text x="${LABEL_WIDTH - 8}" y="${y + 4}" text-anchor="end">${escape(label)}</text>`,
      `<line x1="${x(low)}" x2="${x(high)}" y1="${y}" y2="${y}" stroke="#2166ac" stroke-width="2"/>`,
      `<circle cx="${x(ratio.ratio)}" cy="${y}" r="3.5" fill="#2166ac"/>`,
      `<text x="${PANEL_WIDTH}" y="${y + 4}" text-anchor="end">${ratio.ratio.toFixed(2)}</text>`,
    ].join('')
  })
  return [`<text x="0" y="16" font-weight="bold">${escape(title)}</text>`, ...bands, ...ticks, ...lines].join('\n')
}

/** With too few rounds there is no interval. */
const endsOf = ({ ratio, low, high }: Ratio): readonly [low: number, high: number] =>
  Number.isFinite(low) && Number.isFinite(high) && low > 0 ? [low, high] : [ratio, ratio]

const at = (x: number, y: number, body: string): string => `<g transform="translate(${x} ${y})">\n${body}\n</g>`
const sum = (numbers: readonly number[]): number => numbers.reduce((all, each) => all + each, 0)
const escape = (text: string): string => text.replace(/&/g, '&amp;').replace(/</g, '&lt;').replace(/>/g, '&gt;')
