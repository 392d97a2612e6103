// Text for people: aligned columns, durations, sizes and counts that can be read at a glance.

export type Column = {
  readonly title: string
  readonly align?: 'left' | 'right'
  /** What becomes of its cells where the table would be too wide: broken between words, or cut off with an ellipsis. */
  readonly overflow?: 'wrap' | 'cut'
}

/** A line that a terminal, a mail or an issue shows whole. */
export const LINE_WIDTH = 100
/** A column is not made narrower than this, though the table be too wide. */
const MIN_FLEXIBLE_WIDTH = 12

/** Columns two spaces apart, the title row first, no trailing blanks; every line ends in a newline. */
export function renderTable(
  columns: readonly Column[],
  rows: readonly (readonly string[])[],
  indent = '  ',
  lineWidth = LINE_WIDTH,
): string {
  const lines = [columns.map(({ title }) => title), ...rows]
  const natural = columns.map((_, i) => Math.max(...lines.map((line) => width(line[i] ?? ''))))
  const widths = fit(columns, lines, natural, lineWidth - width(indent) - 2 * (columns.length - 1))
  return lines
    .map((line) => {
      const cells = columns.map(({ overflow }, i) => cellLines(line[i] ?? '', overflow, widths[i]!))
      const height = Math.max(...cells.map((cell) => cell.length))
      return Array.from({ length: height }, (_, part) => {
        const texts = columns.map(({ align }, i) => {
          const text = cells[i]![part] ?? ''
          const blanks = ' '.repeat(widths[i]! - width(text))
          return align === 'right' ? blanks + text : text + blanks
        })
        return `${indent}${texts.join('  ').trimEnd()}\n`
      }).join('')
    })
    .join('')
}

function cellLines(text: string, overflow: Column['overflow'], room: number): readonly string[] {
  if (overflow === 'wrap') return wrapText(text, room)
  return [
    overflow === 'cut' && width(text) > room
      ? `${Array.from(text)
          .slice(0, room - 1)
          .join('')}…`
      : text,
  ]
}

/** Takes from the widest column that may give until all fit, or until none can give any more. */
function fit(
  columns: readonly Column[],
  lines: readonly (readonly string[])[],
  natural: readonly number[],
  room: number,
): readonly number[] {
  const widths = [...natural]
  const floors = columns.map(({ overflow }, i) => {
    const words = overflow === 'wrap' ? lines.flatMap((line) => (line[i] ?? '').split(' ')) : []
    return overflow === undefined ? Infinity : Math.max(MIN_FLEXIBLE_WIDTH, ...words.map(width))
  })
  for (let excess = widths.reduce((sum, w) => sum + w, 0) - room; excess > 0; excess--) {
    const givers = widths.map((w, i) => (w > floors[i]! ? w : 0))
    const widest = givers.indexOf(Math.max(...givers))
    if (givers[widest] === 0) break
    widths[widest]!--
  }
  return widths
}

/** Breaks between words; a word longer than a line stays whole. Never empty. */
export function wrapText(text: string, lineWidth: number): readonly string[] {
  const lines: string[] = []
  let line: string | undefined
  for (const word of text.split(' ')) {
    if (line === undefined) line = word
    else if (width(line) + 1 + width(word) <= lineWidth) line += ` ${word}`
    else {
      lines.push(line)
      line = word
    }
  }
  return [...lines, line ?? '']
}

/** A paragraph whose first line begins with one text and the others with another, such as blanks; ends in a newline. */
export function paragraph(first: string, rest: string, text: string, lineWidth = LINE_WIDTH): string {
  const lines = wrapText(text, lineWidth - Math.max(width(first), width(rest)))
  return lines.map((line, i) => `${i === 0 ? first : rest}${line}\n`).join('')
}

/** Two units at most: `0.4s`, `12s`, `3m12s`, `2h05m`, `3d04h`. Clocks that differ never make it negative. */
export function durationText(ms: number): string {
  const seconds = Math.max(0, ms) / 1000
  if (seconds < 10) return `${(Math.floor(seconds * 10) / 10).toFixed(1)}s`
  const whole = Math.floor(seconds)
  if (whole < 60) return `${whole}s`
  if (whole < 3600) return pair(whole, 60, 'm', 1, 's')
  if (whole < 86400) return pair(whole, 3600, 'h', 60, 'm')
  return pair(whole, 86400, 'd', 3600, 'h')
}

const pair = (seconds: number, large: number, unit: string, small: number, below: string): string =>
  `${Math.floor(seconds / large)}${unit}${String(Math.floor((seconds % large) / small)).padStart(2, '0')}${below}`

/** Three digits: `0.042 ms`, `1.24 ms`, `12.4 ms`, `124 ms`. */
export function millisecondsText(ms: number): string {
  const digits = ms < 0.1 ? 3 : ms < 10 ? 2 : ms < 100 ? 1 : 0
  return `${ms.toFixed(digits)} ms`
}

const UNITS = ['B', 'kB', 'MB', 'GB', 'TB']

/** By thousands: `0 B`, `1.2 MB`. */
export function bytesText(bytes: number): string {
  const unit = bytes < 1000 ? 0 : Math.min(UNITS.length - 1, Math.floor(Math.log10(bytes) / 3))
  const value = bytes / 1000 ** unit
  return `${unit === 0 || value >= 100 ? Math.round(value) : value.toFixed(1)} ${UNITS[unit]}`
}

/** `1 endpoint`, `2 endpoints`. */
export const countText = (count: number, noun: string): string => `${count} ${noun}${count === 1 ? '' : 's'}`

/** The first few of a list, and how many more there are. */
export function listText(items: readonly string[], max: number): string {
  const rest = items.length - max
  return rest > 0 ? `${items.slice(0, max).join(', ')} and ${rest} more` : items.join(', ')
}

/** In columns of a terminal, for the scripts that we print: one for each code point. */
const width = (text: string): number => Array.from(text).length
