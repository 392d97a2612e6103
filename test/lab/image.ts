// The root file system of deploy/Dockerfile's image, without a container engine: what deploy/assemble.sh puts in, over
// the files of the same Debian packages as they are installed on this machine. Nothing else of the machine is in it, so
// that what the image lacks is missing here too. Made once per state of what goes in.

import { execFile, execFileSync } from 'node:child_process'
import { createHash } from 'node:crypto'
import { existsSync, mkdirSync, mkdtempSync, readdirSync, readFileSync, renameSync, rmSync, symlinkSync } from 'node:fs'
import { statSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { promisify } from 'node:util'
import { UsageError } from '../../lib/net/lifetime.ts'
import { REPOSITORY } from './paths.ts'

const IMAGES = `${REPOSITORY}/node_modules/.cache/fulmar/images`
const KEPT = 2
/** Debian's own way: these are links into /usr. */
const MERGED = ['bin', 'sbin', 'lib', 'lib64']
/** What a container runtime mounts over, or a volume may. */
const EMPTY = ['proc', 'sys', 'dev', 'run', 'tmp', 'root', 'etc', 'var/lib', 'var/cache', 'var/tmp']
/** Removed from slim images. */
const NOT_IN_SLIM = /^\/usr\/share\/(doc|man|info|locale|lintian|bug)\//
const OUTPUT_MAX = 64 << 20

/** @returns the folder. @throws UsageError where this is no Debian, or one without the packages of the image. */
export async function imageRoot(): Promise<string> {
  const folder = join(IMAGES, sourceState())
  if (existsSync(folder)) return folder
  mkdirSync(IMAGES, { recursive: true })
  const draft = mkdtempSync(join(IMAGES, 'draft-'))
  try {
    copyPackages(packagesOf(readFileSync(`${REPOSITORY}/deploy/Dockerfile`, 'utf8')), draft)
    await assemble(draft)
    renameSync(draft, folder)
  } catch (error) {
    rmSync(draft, { recursive: true, force: true })
    if (!existsSync(folder)) throw error
  }
  removeOld()
  return folder
}

/** What the first stage of the Dockerfile makes. @param processor as Docker names it; this machine's if nothing is said. */
export async function assemble(folder: string, processor?: 'amd64' | 'arm64'): Promise<void> {
  const words = ['deploy/assemble.sh', folder, ...(processor === undefined ? [] : [processor])]
  // npm is a program of the machine's own Node.
  const PATH = `${REPOSITORY}/node_modules/.bin:${process.env['PATH'] ?? '/usr/bin:/bin'}`
  // What a test runner loads into each Node is none of the compiler's.
  await promisify(execFile)('env', ['-u', 'NODE_OPTIONS', 'sh', ...words], {
    cwd: REPOSITORY,
    env: { ...process.env, PATH },
    maxBuffer: OUTPUT_MAX,
  })
}

/** The packages that the last stage of a Dockerfile installs. */
export function packagesOf(dockerfile: string): readonly string[] {
  const [, words = ''] = /apt-get install ((?:[^&\\]|\\\n)*)/.exec(dockerfile) ?? []
  return words.split(/[\s\\]+/).filter((word) => word !== '' && !word.startsWith('-'))
}

type Package = { readonly name: string; readonly essential: boolean; readonly depends: readonly (readonly string[])[] }

/** Those packages, what they depend on, and what every Debian has. */
function copyPackages(wanted: readonly string[], root: string): void {
  const installed = readInstalled()
  const missing = wanted.filter((name) => !installed.has(name))
  if (missing.length > 0)
    throw new UsageError(
      `the image has Debian packages that this machine lacks; install them: apt-get install ${missing.join(' ')}`,
    )
  const essential = [...installed.values()].filter((each) => each.essential).map(({ name }) => name)
  const all = new Set<string>()
  const waiting = [...wanted, ...essential, 'mount']
  for (let name = waiting.pop(); name !== undefined; name = waiting.pop()) {
    const found = installed.get(name)
    if (found === undefined || all.has(found.name)) continue
    all.add(found.name)
    waiting.push(...found.depends.flatMap((choices) => choices.find((each) => installed.has(each)) ?? []))
  }
  mkdirSync(join(root, 'usr'), { recursive: true })
  for (const name of MERGED) {
    mkdirSync(join(root, 'usr', name), { recursive: true })
    symlinkSync(`usr/${name}`, join(root, name))
  }
  for (const name of EMPTY) mkdirSync(join(root, name), { recursive: true })
  // As the package base-files makes it when it is installed.
  symlinkSync('/run', join(root, 'var/run'))
  const files = output('dpkg', ['-L', ...all])
    .split('\n')
    .filter((path) => path.startsWith('/') && !NOT_IN_SLIM.test(path) && isFile(path))
  const list = join(root, 'files')
  writeFileSync(list, files.map((path) => `${path.slice(1)}\n`).join(''))
  execFileSync('sh', ['-c', 'tar -C / --no-recursion -T "$0/files" -c | tar -C "$0" --skip-old-files -x', root], {
    stdio: ['ignore', 2, 2],
  })
  rmSync(list)
  writeFileSync(join(root, 'etc/passwd'), 'root:x:0:0:root:/root:/bin/sh\n')
  for (const name of ['hosts', 'resolv.conf']) writeFileSync(join(root, 'etc', name), '')
}

/** By name, and by the name of what a package provides. */
function readInstalled(): ReadonlyMap<string, Package> {
  const format = '${db:Status-Status}\t${Package}\t${Essential}\t${Pre-Depends}, ${Depends}\t${Provides}\n'
  let text: string
  try {
    text = output('dpkg-query', ['-W', '-f', format])
  } catch (cause) {
    throw new UsageError('the image is made of Debian packages, and this machine is no Debian', { cause })
  }
  const nameOf = (word: string): string => word.trim().split(/[ :(]/, 1)[0]!
  const packages = text.split('\n').flatMap((line) => {
    const [status, name = '', essential, depends = '', provides = ''] = line.split('\t')
    if (status !== 'installed') return []
    const choices = depends.split(',').map((each) => each.split('|').map(nameOf))
    return [
      { found: { name, essential: essential === 'yes', depends: choices }, provides: provides.split(',').map(nameOf) },
    ]
  })
  return new Map([
    ...packages.flatMap(({ found, provides }) => provides.map((name) => [name, found] as const)),
    ...packages.map(({ found }) => [found.name, found] as const),
  ])
}

const output = (program: string, args: readonly string[]): string =>
  execFileSync(program, args, { encoding: 'utf8', maxBuffer: OUTPUT_MAX })

const isFile = (path: string): boolean => statSync(path, { throwIfNoEntry: false })?.isDirectory() === false

const SOURCES = ['agent', 'cli', 'gateway', 'lib', 'relay', 'deploy']
const SOURCE_FILES = ['package.json', 'package-lock.json', 'tsconfig.json', 'test/lab/image.ts']

function sourceState(): string {
  const hash = createHash('sha256')
  const files = SOURCES.flatMap((folder) =>
    readdirSync(`${REPOSITORY}/${folder}`, { recursive: true, withFileTypes: true })
      .filter((entry) => entry.isFile() && !entry.parentPath.includes('/deploy/chart'))
      .map((entry) => join(entry.parentPath, entry.name)),
  )
  for (const file of [...files, ...SOURCE_FILES.map((name) => `${REPOSITORY}/${name}`)].toSorted())
    hash.update(file).update(readFileSync(file))
  return hash.digest('hex').slice(0, 16)
}

/** Each is some 250 MB. */
function removeOld(): void {
  const made = readdirSync(IMAGES)
    .filter((name) => !name.startsWith('draft-'))
    .map((name) => ({ name, madeMs: statSync(join(IMAGES, name)).mtimeMs }))
    .toSorted((a, b) => b.madeMs - a.madeMs)
  for (const { name } of made.slice(KEPT)) rmSync(join(IMAGES, name), { recursive: true, force: true })
}
