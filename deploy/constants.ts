// Reads numbers out of source text: `const NAME = 4 << 20`, of earlier numbers too, and `const NAME = { perSecond: 20,
// burst: 100 }`. Whatever else a constant may be is left out.

import { runInNewContext } from 'node:vm'

/** A bound, or how often something may happen: so often per second, and so much at once. */
export type Quantity = number | { readonly perSecond: number; readonly burst: number }

const CONSTANT = /^(?:export )?const ([A-Z][A-Z0-9_]*)(?:: number)? = (.+)$/gm
const RATE = /^\{ perSecond: ([\d_]+), burst: ([\d_]+) \}(?: as const)?$/
/** Of numbers and of constants; names of other kinds, which have small letters, are none. */
const ARITHMETIC = /^(?:0x[\da-f_]+\b|\d[\d_.]*\b|[A-Z][A-Z0-9_]*\b|[-+*/()<\s])+$/

export function constantsIn(source: string): ReadonlyMap<string, Quantity> {
  const found = new Map<string, Quantity>()
  for (const [, name = '', text = ''] of source.matchAll(CONSTANT)) {
    const [, perSecond, burst] = RATE.exec(text) ?? []
    const value =
      perSecond === undefined ? evaluate(text, found) : { perSecond: numberOf(perSecond), burst: numberOf(burst!) }
    if (value !== undefined) found.set(name, value)
  }
  return found
}

/** The name says its unit. */
export function quantityText(name: string, quantity: Quantity): string {
  if (typeof quantity !== 'number')
    return `${grouped(quantity.perSecond)} per second, ${grouped(quantity.burst)} at once`
  if (/(^|_)BYTES(_|$)/.test(name)) return bytes(quantity)
  if (name.endsWith('_MS')) return quantity % 1000 === 0 ? `${grouped(quantity / 1000)} s` : `${grouped(quantity)} ms`
  if (/PER_SECOND/.test(name)) return `${grouped(quantity)} per second`
  return grouped(quantity)
}

const grouped = (value: number): string => value.toLocaleString('en-US')
const bytes = (value: number): string => {
  const [unit, size] = value % (1 << 20) === 0 ? ['MiB', 1 << 20] : value % 1024 === 0 ? ['KiB', 1024] : ['bytes', 1]
  return `${grouped(value / (size as number))} ${unit}`
}

const numberOf = (text: string): number => Number(text.replaceAll('_', ''))

/** @returns undefined for what is no arithmetic of numbers that are known. */
function evaluate(text: string, known: ReadonlyMap<string, Quantity>): number | undefined {
  if (!ARITHMETIC.test(text)) return undefined
  try {
    const value: unknown = runInNewContext(text, Object.fromEntries(known))
    return Number.isFinite(value) ? (value as number) : undefined
  } catch {
    return undefined
  }
}
