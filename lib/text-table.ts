// Text for people: aligned columns, durations, sizes and counts that can be read at a glance.

export type Column = { readonly title: string; readonly align?: 'left' | 'right' }

/** Columns two spaces apart, the title row first, no trailing blanks; every line ends in a newline. */
export function renderTable(columns: readonly Column[], rows: readonly (readonly string[])[], indent = '  '): string {
  const lines = [columns.map(({ title }) => title), ...rows]
  const widths = columns.map((_, index) => Math.max(...lines.map((line) => width(line[index] ?? ''))))
  return lines
    .map((line) => {
      const cells = columns.map(({ align }, index) => {
        const cell = line[index] ?? ''
        const blanks = ' '.repeat(widths[index]! - width(cell))
        return align === 'right' ? blanks + cell : cell + blanks
      })
      return `${indent}${cells.join('  ').trimEnd()}\n`
    })
    .join('')
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
