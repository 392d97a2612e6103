#!/usr/bin/env node
// `fulmar`: finds the command and hands over. Only what the command needs is loaded.

import { enableCompileCache, flushCompileCache } from 'node:module'
import { endWithoutReader, EX_USAGE } from '../lib/net/lifetime.ts'
import { CACHE_DIR } from '../lib/owned.ts'
import { withRootPath } from '../lib/net/root-path.ts'
import { VERSION } from '../lib/version.ts'

/** What `<command>/main.ts` and `cli/<command>.ts` export. @returns the exit code. */
type Main = (argv: readonly string[], env: NodeJS.ProcessEnv) => Promise<number>
type Command = { readonly kind: 'daemon' | 'people'; readonly doc: string; readonly module: string }

const COMMANDS: Readonly<Record<string, Command>> = {
  agent: { kind: 'daemon', doc: 'runs on every node: DNS, services, routes', module: '../agent/main.ts' },
  gateway: { kind: 'daemon', doc: 'joins its pool to the others by tunnels', module: '../gateway/main.ts' },
  relay: { kind: 'daemon', doc: 'runs in the cloud: STUN, signalling, packets, API', module: '../relay/main.ts' },
  status: { kind: 'people', doc: 'what the daemons of this node do now, and why', module: './status.ts' },
  paths: {
    kind: 'people',
    doc: 'how each other pool is reached, why so, and what would be better',
    module: './paths.ts',
  },
  doctor: { kind: 'people', doc: 'what is wrong on this node, why it matters and what to do', module: './doctor.ts' },
  join: { kind: 'people', doc: 'makes this machine a node, with a token', module: './join.ts' },
  token: { kind: 'people', doc: 'makes join tokens, on the relay', module: './token.ts' },
  kubeconfig: { kind: 'people', doc: 'prints a kubeconfig for the embedded API', module: './kubeconfig.ts' },
  forward: { kind: 'people', doc: 'a local port to what a node’s operator declared', module: './forward.ts' },
  cleanup: { kind: 'people', doc: 'removes from this machine all that is Fulmar’s', module: './cleanup.ts' },
}

/** sysexits.h: the program itself failed. */
const EX_SOFTWARE = 70

export async function main(argv: readonly string[], env: NodeJS.ProcessEnv): Promise<number> {
  const [name = 'help', ...rest] = argv
  const command = Object.hasOwn(COMMANDS, name) ? COMMANDS[name] : undefined
  if (command !== undefined) {
    if (command.kind === 'daemon' && process.getuid?.() === 0) cacheCompiledCode()
    process.env['PATH'] = withRootPath(process.env['PATH'])
    const module = (await import(command.module)) as { main: Main }
    return module.main(rest, env)
  }
  switch (name) {
    case 'help':
    case '--help':
    case '-h': {
      const about = rest[0]
      if (about !== undefined && Object.hasOwn(COMMANDS, about)) return main([about, '--help'], env)
      process.stdout.write(help())
      return 0
    }
    case 'version':
    case '--version':
    case '-v':
      process.stdout.write(`fulmar ${VERSION}\n`)
      return 0
    default: {
      const { suggest } = await import('../lib/suggest.ts')
      const meant = suggest(name, [...Object.keys(COMMANDS), 'help'])
      const hint = meant === undefined ? 'see fulmar help' : `did you mean fulmar ${meant}?`
      process.stderr.write(`fulmar: there is no command ${JSON.stringify(name)}; ${hint}\n`)
      return EX_USAGE
    }
  }
}

/**
 * Halves the time that a daemon takes to come back after a crash: types are stripped and code is compiled once per
 * machine. Only for root, in a folder of root's: whoever could write there could run code as us.
 */
function cacheCompiledCode(): void {
  enableCompileCache(CACHE_DIR)
  // Written at exit otherwise, which a daemon that is killed never reaches.
  setTimeout(flushCompileCache, CACHE_FLUSH_MS).unref()
}
const CACHE_FLUSH_MS = 3_000

function help(): string {
  const lines = (kind: Command['kind']): string[] =>
    Object.entries(COMMANDS)
      .filter(([, command]) => command.kind === kind)
      .map(([name, { doc }]) => `  ${name.padEnd(12)} ${doc}`)
  return [
    'fulmar COMMAND [--flag VALUE]…',
    '',
    'Daemons:',
    ...lines('daemon'),
    '',
    'For people:',
    ...lines('people'),
    '',
    'fulmar COMMAND --help tells its flags; each may also be given as FULMAR_FLAG in the environment.',
    '',
  ].join('\n')
}

const REMEDIES: ReadonlyMap<unknown, string> = new Map([
  ['ENOSPC', 'free some space there (df -h, df -i)'],
  ['EDQUOT', 'raise the quota, or free some space there'],
  ['EROFS', 'mount it to be written, or name another folder'],
])

/** What somebody can mend is said in one line; what nobody foresaw comes with its stack. */
function explain(name: string, error: unknown): { code: number; text: string } {
  const code = (error as { code?: unknown } | null)?.code
  if ((code === 'EACCES' || code === 'EPERM') && process.getuid?.() !== 0)
    return { code: EX_USAGE, text: `fulmar ${name}: ${(error as Error).message}; run it as root, through sudo` }
  const remedy = REMEDIES.get(code)
  if (remedy !== undefined) return { code: 1, text: `fulmar ${name}: ${(error as Error).message}; ${remedy}` }
  if (!(error instanceof Error) || typeof code !== 'string' || !code.startsWith('FULMAR_'))
    return { code: EX_SOFTWARE, text: error instanceof Error ? (error.stack ?? error.message) : String(error) }
  return { code: code === 'FULMAR_USAGE' ? EX_USAGE : 1, text: `fulmar ${name}: ${error.message}` }
}

if (import.meta.main) {
  endWithoutReader()
  const argv = process.argv.slice(2)
  try {
    process.exitCode = await main(argv, process.env)
  } catch (error) {
    const { code, text } = explain(argv[0] ?? 'help', error)
    process.stderr.write(`${text}\n`)
    process.exitCode = code
  }
}
