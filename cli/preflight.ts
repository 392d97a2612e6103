// The second half of the set-up behind `npm start` and `npm test`, as root: looks for what the lab needs of this
// machine and, on Debian, installs it. Exits with 69 (EX_UNAVAILABLE) where something stays missing that more than a few
// tests need. Its arguments are the command that follows.

import { spawnSync } from 'node:child_process'
import { readdirSync } from 'node:fs'
import { isDebian, probe } from '../lib/net/preflight.ts'
import { announce, missing, packagesFor, report, requirementsOf, type Finding } from '../lib/preflight.ts'

const EX_UNAVAILABLE = 69
const KERNEL_TESTS = 'test/kernel/main.ts'
const BENCH = 'bench/main.ts'
const say = (text: string): void => void process.stderr.write(text)

async function main(): Promise<number> {
  const [command, script, ...words] = process.argv.slice(2)
  const needed = [
    ...requirementsOf('lab'),
    ...(script === KERNEL_TESTS ? requirementsOf('test:kernel') : []),
    ...(script === BENCH ? words.flatMap((word) => requirementsOf(`bench:${word}`)) : []),
  ]
  const requirements = [...needed, ...(command === 'tap' ? requirementsOf('tests') : [])]
  let findings = await probe(requirements)
  const privileged = !findings.some(
    ({ requirement, problem }) => requirement.probe.kind === 'root' && problem !== undefined,
  )
  if (packagesFor(findings).length > 0 && privileged && isDebian()) {
    install(findings)
    findings = await probe(requirements)
  }
  const [lacks, skips] = [needed, requirementsOf('tests')].map((some) =>
    missing(findings).filter(({ requirement }) => some.includes(requirement)),
  ) as [Finding[], Finding[]]
  if (skips.length > 0)
    say(`fulmar: some tests are skipped, since this machine lacks what they need:\n${report(skips)}`)
  if (lacks.length === 0) return 0
  say(`fulmar: this machine lacks what the lab and the tests need:\n${report(lacks)}`)
  if (!isDebian()) say('Only on Debian can this be installed for you. Install it, then run the same command again.\n')
  return EX_UNAVAILABLE
}

function install(findings: readonly Finding[]): void {
  const packages = packagesFor(findings)
  say(`fulmar: installing by apt-get:\n${announce(findings)}`)
  const get = (...args: readonly string[]): boolean =>
    spawnSync('apt-get', ['-qq', '-o', 'Dpkg::Use-Pty=0', ...args], {
      stdio: ['ignore', 2, 2],
      env: { ...process.env, DEBIAN_FRONTEND: 'noninteractive' },
    }).status === 0
  const fetch = (...names: readonly string[]): boolean => get('install', '-y', '--no-install-recommends', ...names)
  if (hasLists() && fetch(...packages)) return
  say('fulmar: apt-get update, since the package lists of this machine do not do\n')
  get('update')
  if (fetch(...packages)) return
  // One package that cannot be had keeps apt-get from the others.
  for (const name of packages) fetch(name)
}

const hasLists = (): boolean => {
  try {
    return readdirSync('/var/lib/apt/lists').some((name) => name.includes('_Packages'))
  } catch {
    return false
  }
}

process.exitCode = await main()
