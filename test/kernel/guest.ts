// A machine of QEMU's with Debian's kernel and this machine's own files, read-only. It runs one test file, then ends.

import { execFile, spawn } from 'node:child_process'
import { once } from 'node:events'
import { accessSync, constants, readFileSync } from 'node:fs'
import { copyFile, mkdir, writeFile } from 'node:fs/promises'
import { availableParallelism, freemem } from 'node:os'
import { basename, join } from 'node:path'
import { text } from 'node:stream/consumers'
import { promisify } from 'node:util'
import { onAbort } from '../../lib/net/lifetime.ts'
import type { Kernel } from './kernel.ts'

export type Work = {
  /** Path from the root of the repository. */
  readonly test: string
  /** By the guest's clock. */
  readonly timeoutS: number
  /** Empty; takes what the guest reads, and `console.log`. */
  readonly folder: string
}
export type Outcome = {
  /** What the test file said. */
  readonly tap: string
  /** Of the test file; undefined where the guest ended before it. */
  readonly exitCode: number | undefined
  /** From the start of the test file to its end, by the guest's clock. */
  readonly tookMs: number
  /** What QEMU said. */
  readonly complaints: string
}

const REPOSITORY = join(import.meta.dirname, '../..')
/** What reaches this machine's files; all else is loaded from there, as the guest needs it. */
const FIRST_MODULES = ['virtio_pci', '9pnet_virtio', '9p', 'overlay']
const MEMORY_MIB = 4_096
/**
 * The instructions that an emulated processor has. AVX, which programs take where they find it, is emulated slowly: until
 * the first test 44 s went by with it and 9 s without (QEMU 7.2).
 */
const EMULATED_CPU = 'Westmere'
/** How many times slower than this machine an emulated one with one processor is, about. */
export const SLOWNESS = 10
/**
 * Of a guest. Where two are emulated in threads of their own, one sees too late that the other has changed code: of 60
 * starts of Node five crashed, of 48 in one thread none (QEMU 7.2).
 */
const PROCESSORS = { real: 2, emulated: 1 }

/** Whether this machine's processors run the guest's instructions by themselves. */
export function hasKvm(): boolean {
  try {
    accessSync('/dev/kvm', constants.R_OK | constants.W_OK)
    // Without these /dev/kvm may open all the same, and run only kernels made for it.
    return /^flags\s*:.*\b(vmx|svm)\b/m.test(readFileSync('/proc/cpuinfo', 'utf8'))
  } catch {
    return false
  }
}

/**
 * Parameters of a kernel whose clock is slower than ours: it takes the processor's counter, which emulation leaves as it
 * is, for so many times faster, and sees no other clock. So an emulated machine seems about as fast as this one, and
 * what has to happen within a time does.
 */
function slowClock(times: number): Readonly<Record<string, string | number>> {
  const mhz = Number(/^cpu MHz\s*: ([\d.]+)/m.exec(readFileSync('/proc/cpuinfo', 'utf8'))?.[1])
  return { tsc_early_khz: Math.round(mhz * 1_000 * times), tsc: 'reliable', pmtmr: 0, hpet: 'disable' }
}

/** How many guests this machine runs at a time. */
export function roomForGuests(): number {
  const processors = hasKvm() ? PROCESSORS.real : PROCESSORS.emulated
  const room = Math.min(availableParallelism() / processors, freemem() / (MEMORY_MIB * 1_048_576))
  return Math.max(1, Math.floor(room))
}

/** Resolves when the guest has ended by itself or, by the signal, was ended. */
export async function runInGuest(kernel: Kernel, work: Work, signal: AbortSignal): Promise<Outcome> {
  const { test, timeoutS, folder } = work
  const initramfs = await makeInitramfs(kernel, folder)
  const kvm = hasKvm()
  // The kernel hands on what it does not know to its first program, as environment.
  const handedOn = {
    repository: REPOSITORY,
    modules: join(kernel.folder, 'lib/modules'),
    test,
    timeout: timeoutS,
    ...(kvm ? {} : { EMULATED: 1 }),
  }
  const parameters = {
    ...(kvm ? {} : slowClock(SLOWNESS)),
    ...{ console: 'ttyS0', loglevel: 1, panic: -1 },
    ...handedOn,
  }
  const commandLine = Object.entries(parameters)
    .map(([name, value]) => `${name}=${value}`)
    .join(' ')
  const words = [
    ...['-machine', 'q35', '-m', String(MEMORY_MIB), '-no-reboot', '-net', 'none', '-display', 'none'],
    ...['-accel', kvm ? 'kvm' : 'tcg', '-cpu', kvm ? 'max' : EMULATED_CPU],
    ...['-smp', String(kvm ? PROCESSORS.real : PROCESSORS.emulated)],
    ...['-kernel', join(kernel.folder, 'boot', `vmlinuz-${kernel.version}`), '-initrd', initramfs],
    ...['-append', commandLine],
    ...['-virtfs', 'local,path=/,mount_tag=host,security_model=none,readonly=on,multidevs=remap'],
    ...['-serial', `file:${join(folder, 'console.log')}`, '-serial', 'stdio', '-monitor', 'none'],
  ]
  const child = spawn('setpriv', ['--pdeathsig', 'KILL', 'qemu-system-x86_64', ...words], {
    stdio: ['ignore', 'pipe', 'pipe'],
  })
  onAbort(signal, () => void child.kill('SIGKILL'))
  const [said, complaints] = await Promise.all([text(child.stdout), text(child.stderr), once(child, 'close')])
  const end = /^exit (\d+) after (\d+) ms\n$/m.exec(said)
  return {
    tap: said.slice(0, end?.index),
    exitCode: end === null ? undefined : Number(end[1]),
    tookMs: Number(end?.[2] ?? 0),
    complaints,
  }
}

/** busybox as a shell, the first modules in the order of their needs, and init.sh as the first program. */
async function makeInitramfs({ version, folder: kernelFolder }: Kernel, folder: string): Promise<string> {
  const [tree, file] = [join(folder, 'initramfs'), join(folder, 'initramfs.cpio')]
  await mkdir(join(tree, 'bin'), { recursive: true })
  await mkdir(join(tree, 'modules'))
  await copyFile('/bin/busybox', join(tree, 'bin/busybox'))
  await copyFile(join(import.meta.dirname, 'init.sh'), join(tree, 'init'))
  const shown = await execute('modprobe', [
    ...['--dirname', kernelFolder, '--set-version', version, '--all', '--show-depends'],
    ...FIRST_MODULES,
  ])
  const paths = new Set([...shown.matchAll(/^insmod (\S+)/gm)].map(([, path]) => path!))
  for (const path of paths) await copyFile(path, join(tree, 'modules', basename(path)))
  await writeFile(join(tree, 'modules/order'), [...paths].map((path) => `${basename(path)}\n`).join(''))
  await execute('sh', [
    '-c',
    'cd "$0" && chmod +x init && find . | cpio --create --format=newc --quiet >"$1"',
    tree,
    file,
  ])
  return file
}

async function execute(program: string, args: readonly string[]): Promise<string> {
  return (await promisify(execFile)(program, args)).stdout
}
