// What is in the image, from the files that its definition puts together: all programs that the daemons want, and a
// fulmar that starts there with nothing else of this machine.

import { execFileSync } from 'node:child_process'
import {
  closeSync,
  existsSync,
  lstatSync,
  mkdtempSync,
  openSync,
  readdirSync,
  readFileSync,
  readSync,
  rmSync,
} from 'node:fs'
import { join } from 'node:path'
import t from 'tap'
import { REQUIREMENTS } from '../../lib/preflight.ts'
import { VERSION } from '../../lib/version.ts'
import { assemble, imageRoot, packagesOf } from '../lab/image.ts'

t.setTimeout(300_000)
const isRoot = process.getuid!() === 0
const REPOSITORY = join(import.meta.dirname, '../..')
const MACHINES: Readonly<Record<number, string>> = { 0x3e: 'x64', 0xb7: 'arm64' }

t.test('the packages of a Dockerfile', (t) => {
  const text =
    'RUN apt-get update \\\n && apt-get install -y --no-install-recommends \\\n      a-1 b \\\n      c \\\n && rm -rf /x\n'
  t.strictSame(packagesOf(text), ['a-1', 'b', 'c'])
  t.strictSame(packagesOf('FROM scratch\n'), [])
  t.end()
})

t.test('the image of this machine’s processor', { skip: !isRoot && 'needs root' }, async (t) => {
  const root = await imageRoot()
  const inside = (...words: readonly string[]): string =>
    execFileSync(
      'unshare',
      [
        '--mount',
        '--net',
        '--pid',
        '--fork',
        'chroot',
        root,
        'env',
        '-i',
        'PATH=/usr/local/bin:/usr/sbin:/usr/bin',
        ...words,
      ],
      {
        encoding: 'utf8',
      },
    )
  t.equal(inside('fulmar', '--version'), `fulmar ${VERSION}\n`)
  for (const daemon of ['agent', 'gateway', 'relay'])
    t.match(inside('fulmar', daemon, '--help'), new RegExp(`^fulmar ${daemon} `), `fulmar ${daemon}`)
  const programs = REQUIREMENTS.flatMap(({ needers, probe }) =>
    probe.kind === 'program' && needers.some((each) => each === 'agent' || each === 'gateway' || each === 'relay')
      ? [probe.program]
      : [],
  )
  for (const program of [...programs, 'wireguard-go', 'sh', 'env', 'setsid', 'renice', 'nice', 'mount', 'sleep'])
    t.ok(
      ['bin', 'sbin', 'usr/bin', 'usr/sbin', 'usr/local/bin'].some((folder) => existsSync(join(root, folder, program))),
      program,
    )
  // Loads every shared library that it is linked against.
  for (const words of [
    ['nft', '--version'],
    ['conntrack', '--version'],
    ['wg', '--version'],
    ['wireguard-go', '--version'],
  ])
    t.match(inside(...words), /\d/, words.join(' '))
  const left = filesOf(join(root, 'opt/fulmar')).filter((path) => /(\.ts|\.map|\.test\.js)$/.test(path))
  t.strictSame(left, [], 'neither sources nor types')
})

t.test(
  'the image of the other processor has its binaries',
  { skip: process.env['LONG'] !== '1' && 'takes a download: LONG=1' },
  async (t) => {
    for (const [processor, name] of [
      ['amd64', 'x64'],
      ['arm64', 'arm64'],
    ] as const) {
      const folder = mkdtempSync(join(REPOSITORY, 'node_modules/.cache/fulmar/', 'other-'))
      t.teardown(() => rmSync(folder, { recursive: true, force: true }))
      await assemble(folder, processor)
      const binaries = filesOf(folder).filter(
        (path) => !lstatSync(path).isSymbolicLink() && machineOf(path) !== undefined,
      )
      t.strictSame([...new Set(binaries.map(machineOf))], [name], `${processor}: ${binaries.length} binaries`)
      t.ok(binaries.some((path) => path.endsWith('/usr/local/bin/node')))
      t.ok(binaries.some((path) => path.includes('/netlink/prebuilds/')))
    }
  },
)

const filesOf = (folder: string): readonly string[] =>
  readdirSync(folder, { recursive: true, withFileTypes: true })
    .filter((entry) => entry.isFile())
    .map((entry) => join(entry.parentPath, entry.name))

/** Of an ELF file, by its header. */
function machineOf(path: string): string | undefined {
  const head = Buffer.alloc(20)
  const file = openSync(path, 'r')
  readSync(file, head)
  closeSync(file)
  return head.toString('latin1', 0, 4) === '\x7fELF' ? (MACHINES[head.readUInt16LE(18)] ?? 'other') : undefined
}

t.test('the builder ignores what it does not read', (t) => {
  const shown = readFileSync(`${REPOSITORY}/deploy/Dockerfile.dockerignore`, 'utf8')
    .split('\n')
    .filter((line) => line.startsWith('!'))
    .map((line) => line.slice(1))
  t.strictSame(
    shown.filter((name) => !existsSync(join(REPOSITORY, name))),
    [],
  )
  t.end()
})
