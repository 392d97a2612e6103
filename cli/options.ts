// The flags of a command for people: parsed, or explained, or every mistake told.

import { describeOptions, parseOptions, type Options, type Values } from '../lib/config.ts'

const EX_USAGE = 64

/** @param usage the first line of the help. @returns the values, or the exit code after telling what there is to tell. */
export function readOptions<O extends Options>(
  usage: string,
  options: O,
  argv: readonly string[],
  env: NodeJS.ProcessEnv,
): Values<O> | number {
  const parsed = parseOptions(options, argv, env)
  if (parsed.kind === 'help') {
    process.stdout.write(`${usage}\n\n${describeOptions(options)}\n`)
    return 0
  }
  const errors =
    parsed.kind === 'invalid'
      ? parsed.errors
      : parsed.positional.map((word) => `${word}: nothing is expected here; see --help`)
  if (parsed.kind === 'ok' && errors.length === 0) return parsed.values
  const command = usage.split(' ').slice(0, 2).join(' ')
  for (const error of errors) process.stderr.write(`${command}: ${error}\n`)
  return EX_USAGE
}
