// `npm run test:kernel [-- FILE…]`: the tests of tunnels and pools on Debian's own kernel, which has WireGuard, in QEMU.
// A line per test file on stdout as from `npm test`, in seconds of the guest's clock; progress on stderr, in ours. Exits
// with 1 if anything fails, with 69 (EX_UNAVAILABLE) where the kernel cannot be had.

import { existsSync } from 'node:fs'
import { mkdtemp, rm } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import type { Readable } from 'node:stream'
import { pipeline } from 'node:stream/promises'
import { Parser, type FinalResults } from 'tap-parser'
import { endWithoutReader, EX_USAGE, runUntilSignal, UsageError } from '../../lib/net/lifetime.ts'
import Reporter from '../reporter.ts'
import { hasKvm, SLOWNESS, startGuest } from './guest.ts'
import { ensureKernel, KernelError } from './kernel.ts'

/** What WireGuard devices and routes are made with; any other test file runs when it is named. */
const TESTS = [
  'test/kernel/implementation.ts',
  'test/gateway/wireguard-loop.test.ts',
  'test/gateway/leave-device-loop.test.ts',
  'test/gateway/routes-loop.test.ts',
  'test/agent/routes-loop.test.ts',
  'test/cli/cleanup.test.ts',
  'test/relay/udp-relay-netns.test.ts',
  'test/mesh/switch.test.ts',
]
const FILE_TIMEOUT_S = 120
const DEADLINE_MIN = 30
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
  const work = { tests, timeoutS: FILE_TIMEOUT_S, folder }
  const guest = await startGuest(kernel, work, AbortSignal.any([interrupted, late]))
  const [results, complaints] = await Promise.all([report(guest.tap), guest.ended])
  // A guest that ends before its first word says nothing wrong.
  const ok = results.ok && results.count === tests.length
  if (late.aborted) say(`the guest was ended, since it took more than ${DEADLINE_MIN} minutes`)
  if (!ok && !interrupted.aborted) {
    say(`${complaints}not all passed; what the guest said besides is in ${join(folder, 'console.log')}`)
    return 1
  }
  await rm(folder, { recursive: true })
  return interrupted.aborted ? EX_INTERRUPTED : 0
}

/** Prints as `npm test` does, and on stderr what is begun. */
async function report(tap: Readable): Promise<FinalResults> {
  const parser = new Parser()
  parser.on('child', ({ name }: Parser) => say(name))
  const results = new Promise<FinalResults>((resolve) => parser.on('complete', resolve))
  tap.pipe(parser)
  await pipeline(tap, new Reporter(), process.stdout, { end: false })
  return results
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
