// Flags and environment become one narrow value, or a list of every mistake at once.
// Each option is `--name value` or FULMAR_NAME; the flag wins.

import { parseSocketAddress, type SocketAddress } from './address.ts'
import { normalise } from './cidr.ts'

export type Option<T> = {
  /** The flag without dashes, in kebab-case; `FULMAR_` and its upper snake case is the variable. */
  readonly name: string
  readonly doc: string
  /** Shown in help, e.g. `ADDRESS:PORT`; absent for a switch, whose text is `true`. */
  readonly value?: string
  /** The text used when neither flag nor variable is given; absent for a required option. */
  readonly fallback?: string
  /** @throws Error saying what is wrong with the text and what would be right. */
  readonly parse: (text: string) => T
}

export type Options = { readonly [key: string]: Option<unknown> }
export type Values<O extends Options> = { readonly [K in keyof O]: O[K] extends Option<infer T> ? T : never }
export type ParsedOptions<O extends Options> =
  | { readonly kind: 'ok'; readonly values: Values<O>; readonly positional: readonly string[] }
  | { readonly kind: 'help' }
  | { readonly kind: 'invalid'; readonly errors: readonly string[] }

/** Parses `--name value`, `--name=value`, switches, and everything after `--` or without dashes as positional. */
export function parseOptions<O extends Options>(
  options: O,
  argv: readonly string[],
  env: Readonly<Record<string, string | undefined>>,
): ParsedOptions<O> {
  const texts = new Map<string, string>()
  const positional: string[] = []
  const errors: string[] = []
  const byName = new Map(Object.values(options).map((option) => [option.name, option]))

  for (let i = 0; i < argv.length; i++) {
    const word = argv[i]!
    if (word === '--') {
      positional.push(...argv.slice(i + 1))
      break
    }
    if (word === '--help' || word === '-h') return { kind: 'help' }
    if (!word.startsWith('-') || word === '-') {
      positional.push(word)
      continue
    }
    const [, name, , inline] = /^--?([^=]+)(=([\s\S]*))?$/.exec(word) ?? [undefined, word]
    const option = byName.get(name!)
    if (option === undefined) {
      errors.push(`${word}: no such flag; see --help`)
      continue
    }
    if (option.value === undefined) {
      texts.set(option.name, inline ?? 'true')
      continue
    }
    const text = inline ?? argv[++i]
    if (text === undefined) errors.push(`--${option.name}: needs a value ${option.value}`)
    else texts.set(option.name, text)
  }

  const values: Record<string, unknown> = {}
  for (const [key, option] of Object.entries(options)) {
    const flag = texts.get(option.name)
    const variable = variableOf(option.name)
    const text = flag ?? env[variable] ?? option.fallback
    const source = flag === undefined && env[variable] !== undefined ? variable : `--${option.name}`
    if (text === undefined) {
      errors.push(`${source}: is required: ${option.doc}`)
      continue
    }
    try {
      values[key] = option.parse(text)
    } catch (error) {
      errors.push(`${source} ${JSON.stringify(text)}: ${(error as Error).message}`)
    }
  }
  return errors.length > 0 ? { kind: 'invalid', errors } : { kind: 'ok', values: values as Values<O>, positional }
}

/** The help text of a set of options, one line each. */
export function describeOptions(options: Options): string {
  return Object.values(options)
    .map((option) => {
      const flag = `--${option.name}${option.value === undefined ? '' : ` ${option.value}`}`
      const fallback = option.fallback ? ` (default ${option.fallback})` : ''
      return `  ${flag.padEnd(32)} ${option.doc}${fallback}`
    })
    .join('\n')
}

const variableOf = (name: string) => `FULMAR_${name.toUpperCase().replaceAll('-', '_')}`

export const text = (value: string): string => {
  if (value === '') throw new Error('is empty')
  return value
}
/** undefined for empty text. */
export const optional =
  <T>(parse: (value: string) => T) =>
  (value: string): T | undefined =>
    value === '' ? undefined : parse(value)
export const optionalText = optional((value) => value)
export const flag = (value: string): boolean => {
  if (value === 'true' || value === 'false') return value === 'true'
  throw new Error('is neither true nor false')
}
/** A whole number between two bounds, both included. */
export const integer =
  (min: number, max: number) =>
  (value: string): number => {
    const number = Number(value)
    if (!/^-?\d+$/.test(value) || number < min || number > max)
      throw new Error(`is not a whole number from ${min} to ${max}`)
    return number
  }
const UNIT_MS = { s: 1_000, m: 60_000, h: 3_600_000, d: 86_400_000 } as const
/** In the largest unit that it is a whole number of. */
const timeText = (ms: number): string => {
  const [unit, unitMs] = Object.entries(UNIT_MS).findLast(([, each]) => ms % each === 0) ?? ['ms', 1]
  return `${ms / unitMs}${unit}`
}
/** `90s`, `30m`, `24h`, `90d`, between two bounds in milliseconds, both included. @returns milliseconds. */
export const duration =
  (minMs: number, maxMs: number) =>
  (value: string): number => {
    const [, digits, unit] = /^(\d+)([smhd])$/.exec(value) ?? []
    const ms = Number(digits) * (UNIT_MS[unit as keyof typeof UNIT_MS] ?? NaN)
    if (!(ms >= minMs && ms <= maxMs))
      throw new Error(
        `is not a time like 90s, 30m, 24h or 90d, at least ${timeText(minMs)}, at most ${timeText(maxMs)}`,
      )
    return ms
  }
/** A comma-separated list, empty entries left out. */
export const list =
  <T>(parse: (item: string) => T) =>
  (value: string): readonly T[] =>
    value
      .split(',')
      .map((item) => item.trim())
      .filter((item) => item !== '')
      .map(parse)
export const url =
  (...protocols: readonly string[]) =>
  (value: string): URL => {
    const parsed = URL.parse(value)
    if (parsed === null || !protocols.includes(parsed.protocol.slice(0, -1)))
      throw new Error(`is not a URL like ${protocols[0]}://host:port`)
    return parsed
  }
/** In canonical text. */
export const ipAddress = (value: string): string => {
  const address = value.includes('/') ? undefined : normalise(value)
  if (address === undefined) throw new Error(`${value} is no IP address`)
  return address
}
export const socketAddress = (value: string): SocketAddress => {
  const address = parseSocketAddress(value)
  if (address === undefined) throw new Error('is not ADDRESS:PORT or [ADDRESS]:PORT')
  return address
}
