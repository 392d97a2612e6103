// `npm run test:kernel [-- FILE…]`: the tests of tunnels and pools on Debian's own kernel, which has WireGuard, each file in
// a QEMU of its own. A line per file on stdout as from `npm test`, in seconds of the guest's clock; progress on stderr, in
// ours. Exits with 1 if anything fails, with 69 (EX_UNAVAILABLE) where the kernel cannot be had.

import { existsSync } from 'node:fs'
import { mkdir, mkdtemp, rm } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { pipeline } from 'node:stream/promises'
import { endWithoutReader, EX_USAGE, runUntilSignal, UsageError } from '../../lib/net/lifetime.ts'
import Reporter from '../reporter.ts'
import { hasKvm, roomForGuests, runInGuest, SLOWNESS, type Outcome } from './guest.ts'
import { ensureKernel, KernelError, type Kernel } from './kernel.ts'

/** What WireGuard devices and routes are made with, the longest first; any other test file runs when it is named. */
const TESTS = [
  'test/mesh/switch.test.ts',
  'test/kernel/implementation.ts',
  'test/relay/udp-relay-netns.test.ts',
  'test/cli/cleanup.test.ts',
  'test/gateway/wireguard-loop.test.ts',
  'test/gateway/leave-device-loop.test.ts',
  'test/gateway/routes-loop.test.ts',
  'test/agent/routes-loop.test.ts',
]
const FILE_TIMEOUT_S = 180
const DEADLINE_MIN = 45
const EX_UNAVAILABLE = 69
const EX_INTERRUPTED = 130

const say = (line: string): void =>
  void process.stderr.write(`[${(performance.now() / 1_000).toFixed(0).padStart(4)} s] ${line}\n`)

async function runTests(tests: readonly string[], interrupted: AbortSignal): Promise<number> {
  const unknown = tests.filter((file) => !existsSync(file))
  if (unknown.length > 0) throw new UsageError(`no such test file: ${unknown.join(', ')}`)
  const kernel = await ensureKernel(say)
  const folder = await mkdtemp(join(tmpdir(), 'fulmar-kernel-'))
  const late = AbortSignal.timeout(DEADLINE_MIN * 60_000)
  const how = hasKvm() ? 'with KVM' : `emulated, since this machine has no KVM: its clock is ${SLOWNESS} times slower`
  say(`Linux ${kernel.version} boots in QEMU, ${how}`)
  const passed = await runEach(kernel, tests, folder, AbortSignal.any([interrupted, late]))
  if (late.aborted) say(`ended, since not all had run after ${DEADLINE_MIN} minutes`)
  if (passed || interrupted.aborted) await rm(folder, { recursive: true })
  return interrupted.aborted ? EX_INTERRUPTED : passed ? 0 : 1
}

/** Prints each file as `npm test` does when it has ended. @returns whether all ran and none failed. */
async function runEach(
  kernel: Kernel,
  tests: readonly string[],
  folder: string,
  signal: AbortSignal,
): Promise<boolean> {
  const reporter = new Reporter()
  const printed = pipeline(reporter, process.stdout, { end: false })
  reporter.write('TAP version 14\n')
  const waiting = tests.entries()
  let [ended, passed] = [0, 0]
  const runOneAfterTheOther = async (): Promise<void> => {
    for (const [index, test] of waiting) {
      if (signal.aborted) return
      say(test)
      const work = { test, timeoutS: FILE_TIMEOUT_S, folder: join(folder, String(index + 1)) }
      await mkdir(work.folder)
      const outcome = await runInGuest(kernel, work, signal)
      if (outcome.exitCode === 0) passed++
      // A line after the result, so that it is seen to have no diagnostics, and printed.
      reporter.write(`${tapOf(test, ++ended, outcome)}\n`)
      if (outcome.exitCode !== 0)
        say(`${outcome.complaints}what the guest of ${test} said besides is in ${work.folder}`)
    }
  }
  await Promise.all(Array.from({ length: roomForGuests() }, runOneAfterTheOther))
  reporter.end(`1..${tests.length}\n`)
  await printed
  return passed === tests.length
}

/** A test file as the subtest with this number. */
function tapOf(file: string, number: number, { tap, exitCode, tookMs }: Outcome): string {
  const said = tap.replace(/^(?=.)/gm, '    ')
  const result = `${exitCode === 0 ? 'ok' : 'not ok'} ${number} - ${file} # time=${tookMs}ms\n`
  const diagnostics =
    exitCode === 0 ? '' : `  ---\n  exitCode: ${exitCode ?? 'none, since the guest ended before'}\n  ...\n`
  return `# Subtest: ${file}\n${said}${result}${diagnostics}`
}

endWithoutReader()
await runUntilSignal(async (signal) => {
  try {
    const files = process.argv.slice(2)
    process.exitCode = await runTests(files.length > 0 ? files : TESTS, signal)
  } catch (error) {
    if (!(error instanceof UsageError || error instanceof KernelError)) throw error
    process.stderr.write(`test:kernel: ${error.message}\n`)
    process.exitCode = error instanceof UsageError ? EX_USAGE : EX_UNAVAILABLE
  }
})
