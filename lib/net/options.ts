// The flags of a command: parsed, or explained, or every mistake told.

import { describeOptions, parseOptions, type Options, type Values } from '../config.ts'
import { EX_USAGE } from './lifetime.ts'

/**
 * @param usage the first line of the help; the words before its first flag are those that the command is called by.
 * @returns the values, or the exit code after telling what there is to tell.
 */
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
  const [program, command, ...words] = usage.split(/ \[?--/, 1)[0]!.split(' ')
  const errors = parsed.kind === 'invalid' ? parsed.errors : misplaced(parsed.positional, words, usage)
  if (parsed.kind === 'ok' && errors.length === 0) return parsed.values
  for (const error of errors) process.stderr.write(`${program} ${command}: ${error}\n`)
  return EX_USAGE
}

function misplaced(given: readonly string[], expected: readonly string[], usage: string): readonly string[] {
  const missing = expected.filter((word, index) => given[index] !== word)
  if (missing.length > 0) return [`${missing.join(' ')}: is missing; write ${usage}`]
  return given.slice(expected.length).map((word) => `${word}: nothing is expected here; see --help`)
}
