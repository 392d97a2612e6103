// The commands of the lab. What only some of them need is loaded by those, since `exec` should start at once.

import { constants } from 'node:os'
import { createReadStream, readFileSync } from 'node:fs'
import { describeOptions, flag, parseOptions, type Option, type Options, type Values } from '../../lib/config.ts'
import { UsageError } from '../../lib/net/lifetime.ts'
import { suggest } from '../../lib/suggest.ts'
import { DAEMONS, type DaemonName } from './daemons.ts'
import { placeOf, spawnAt } from './enter.ts'
import { pathsOf } from './names.ts'
import { CUTS, type Cut } from './nat.ts'
import { MATRIX } from './matrix-options.ts'
import { OPS } from './ops-options.ts'
import { ID, JSON_FLAG, UP } from './options.ts'
import { readState } from './state.ts'

type Command = {
  readonly usage: string
  readonly doc: string
  readonly options: Options
  readonly run: (argv: readonly string[]) => Promise<number>
}

const ALL = { name: 'all', doc: 'every lab of this machine', fallback: 'false', parse: flag } satisfies Option<boolean>
const SIGNAL = {
  name: 'signal',
  doc: 'which signal',
  value: 'NAME',
  fallback: 'SIGKILL',
  parse: (text) => {
    const name = (text.startsWith('SIG') ? text : `SIG${text}`) as NodeJS.Signals
    if (!(name in constants.signals)) throw new Error('is no signal, such as SIGTERM or KILL')
    return name
  },
} satisfies Option<NodeJS.Signals>

const command = <O extends Options>(
  usage: string,
  doc: string,
  options: O,
  body: (values: Values<O>, words: readonly string[], argv: readonly string[]) => Promise<number>,
): Command => ({
  usage,
  doc,
  options,
  run: async (argv) => {
    // The environment is the machine's and its hosts' too, so that only flags make a lab.
    const parsed = parseOptions(options, argv, {})
    if (parsed.kind === 'help') return help(usage, doc, options)
    if (parsed.kind === 'invalid') {
      const hint = usage.includes(' -- ') && !argv.includes('--') ? `\nwrite ${usage}, with the two dashes` : ''
      throw new UsageError(parsed.errors.join('\n') + hint)
    }
    return body(parsed.values, parsed.positional, argv)
  },
})

const COMMANDS: Readonly<Record<string, Command>> = {
  up: command('up', 'start a lab', UP, async (values, words, argv) => {
    if (words.length > 0)
      throw new UsageError(`up: what is ${JSON.stringify(words[0])}? it takes flags only; see up --help`)
    const { up } = await import('./up.ts')
    return up(values, argv)
  }),
  down: command('down', 'remove a lab, whatever state it is in', { id: ID, all: ALL }, async ({ id, all }, words) => {
    if (words.length > 0)
      throw new UsageError(`down: what is ${JSON.stringify(words[0])}? name a lab with --id ${words[0]}`)
    const { findLabs, removeEmptyFolder, takeDown } = await import('./teardown.ts')
    const labs = findLabs()
    if (!all && !labs.includes(id)) {
      process.stderr.write(
        `lab: --id ${id}: no such lab; ${labs.length === 0 ? 'there is none' : `there are ${labs.join(', ')}`}\n`,
      )
      return 1
    }
    for (const lab of all ? labs : [id]) await takeDown(lab)
    removeEmptyFolder()
    process.stderr.write('down; nothing is left\n')
    return 0
  }),
  matrix: command('matrix', 'every pair of NAT types, tried until it is sure', MATRIX, async (values, words) => {
    if (words.length > 0)
      throw new UsageError(`matrix: what is ${JSON.stringify(words[0])}? it takes flags only; see matrix --help`)
    const { matrix } = await import('./matrix.ts')
    return matrix(values)
  }),
  ops: command('ops', 'kubectl on nodes that nobody can dial: every command', OPS, async (values, words) => {
    if (words.length > 0)
      throw new UsageError(`ops: what is ${JSON.stringify(words[0])}? it takes flags only; see ops --help`)
    const { ops } = await import('./ops.ts')
    return ops(values)
  }),
  exec: command('exec HOST -- COMMAND…', 'run a command on a host', { id: ID }, ({ id }, [host, ...words]) => {
    if (host === undefined || words.length === 0) throw new UsageError('exec: say exec HOST -- COMMAND ARGUMENT…')
    return exec(id, host, words)
  }),
  cut: command(
    `cut ${CUTS.join('|')} POOL`,
    'cut a site off: its UDP, everything, or the cloud',
    { id: ID },
    async ({ id }, [kind, pool]) => {
      const { cut } = await import('./cuts.ts')
      await cut(readState(id).topology, oneOf('cut', CUTS, kind) satisfies Cut, wanted('cut', 'POOL', pool))
      return 0
    },
  ),
  heal: command('heal POOL|all', 'undo what was cut', { id: ID }, async ({ id }, [pool]) => {
    const { heal } = await import('./cuts.ts')
    await heal(readState(id).topology, wanted('heal', 'POOL or all', pool))
    return 0
  }),
  status: command('status', 'what all daemons say', { id: ID, json: JSON_FLAG }, async ({ id, json }) => {
    const { readStatus, renderLabStatus } = await import('./status.ts')
    const status = await readStatus(id)
    process.stdout.write(json ? `${JSON.stringify(status)}\n` : renderLabStatus(status, Date.now()))
    return status.silent.length > 0 || status.state === 'abandoned' ? 1 : 0
  }),
  kill: command(
    `kill HOST ${DAEMONS.join('|')}`,
    'end a process, as its host might',
    { id: ID, signal: SIGNAL },
    async ({ id, signal }, [host, daemon]) => {
      const { file, name } = fileOf('kill', id, host, daemon)
      process.kill(Number(readOr(file, () => new UsageError(`${name} is not running`))), signal)
      return 0
    },
  ),
  logs: command(`logs HOST ${DAEMONS.join('|')}`, 'the output of a process', { id: ID }, ({ id }, [host, daemon]) => {
    const { file, name } = fileOf('logs', id, host, daemon)
    readOr(file, () => new UsageError(`${name} was never started on this host`))
    return new Promise((resolve, reject) =>
      createReadStream(file)
        .on('error', reject)
        .on('end', () => resolve(0))
        .pipe(process.stdout, { end: false }),
    )
  }),
}

/** @returns the exit code. @throws UsageError for what a person can mend. */
export async function main([name = '', ...argv]: readonly string[]): Promise<number> {
  if (['', 'help', '--help', '-h'].includes(name)) return help('COMMAND', overview(), {})
  const found = COMMANDS[name]
  if (found !== undefined) return found.run(argv)
  const hint = suggest(name, Object.keys(COMMANDS))
  throw new UsageError(
    `${name}: no such command${hint === undefined ? '' : `, is it ${hint}?`}; there are ${Object.keys(COMMANDS).join(', ')}`,
  )
}

const overview = () =>
  [
    'an Internet of network namespaces on this machine\n',
    ...Object.values(COMMANDS).map(({ usage, doc }) => `  ${usage.padEnd(42)} ${doc}`),
  ].join('\n')

function help(usage: string, doc: string, options: Options): number {
  const described = describeOptions(options)
  process.stdout.write(`npm run lab -- ${usage}: ${doc}\n${described === '' ? '' : `\n${described}\n`}`)
  return 0
}

/** The program has this terminal; what ends it by a signal gives the exit code that a shell would. */
function exec(id: string, host: string, words: readonly string[]): Promise<number> {
  const child = spawnAt(id, placeOf(readState(id).topology, host), words, { stdio: 'inherit', cwd: process.cwd() })
  // Ctrl-C reaches both; the program decides.
  for (const signal of ['SIGINT', 'SIGQUIT'] as const) process.on(signal, () => {})
  for (const signal of ['SIGTERM', 'SIGHUP'] as const) process.on(signal, () => void child.kill(signal))
  return new Promise((resolve, reject) => {
    child.once('error', reject)
    child.once('exit', (code, signal) => resolve(code ?? 128 + (signal === null ? 0 : constants.signals[signal])))
  })
}

function fileOf(command: 'kill' | 'logs', id: string, host: string | undefined, daemon: string | undefined) {
  const { topology } = readState(id)
  placeOf(topology, wanted(command, `${command} HOST ${DAEMONS.join('|')}`, host))
  const name = oneOf(`${command} ${host}`, DAEMONS, daemon) satisfies DaemonName
  const pod = topology.pods.find((candidate) => `${candidate.node}-${candidate.name}` === host)
  const paths = pathsOf(id)
  const file = (command === 'kill' ? paths.pidOf : paths.logOf)(pod?.host ?? host!, name)
  return { file, name: `${name} on ${host}` }
}

function readOr(file: string, error: () => Error): string {
  try {
    return readFileSync(file, 'utf8')
  } catch {
    throw error()
  }
}

function oneOf<T extends string>(what: string, known: readonly T[], word: string | undefined): T {
  const found = known.find((name) => name === word)
  if (found === undefined)
    throw new UsageError(
      `${what}: ${word === undefined ? 'say' : `${JSON.stringify(word)} is not`} one of ${known.join(', ')}`,
    )
  return found
}

function wanted(command: string, what: string, word: string | undefined): string {
  if (word === undefined) throw new UsageError(`${command}: say ${what}`)
  return word
}
