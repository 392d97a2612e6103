// `npm start`: the lab as a live demo. Two sites behind NAT come up, a pod of one calls a Service that only the other
// has, packets run both ways while the path moves from the relay to direct; then a timeline, and the lab stays to play
// with until Ctrl-C. With --once it ends by itself, and exits 0 only if everything held.

import { describeOptions, flag, parseOptions, type Option } from '../../lib/config.ts'
import { aborted, endWithoutReader, runUntilSignal, UsageError } from '../../lib/net/lifetime.ts'
import { renderStatus } from '../../lib/status-text.ts'
import { findPairs, measureFirstContact, type FirstContact } from './first-contact.ts'
import { readFolder } from './folder.ts'
import { openLab, type Lab } from './lab.ts'
import { JSON_FLAG, UP } from './options.ts'
import { PACKETS_AFTER_MS, renderTimeline, slownessOf, verdictOf } from './timeline.ts'

const OPTIONS = {
  id: { ...UP.id, fallback: 'demo' },
  pools: UP.pools,
  nodes: UP.nodes,
  nat: UP.nat,
  manifests: UP.manifests,
  underlay: UP.underlay,
  overlapLans: UP.overlapLans,
  fromChart: UP.fromChart,
  once: { name: 'once', doc: 'end after the timeline', fallback: 'false', parse: flag } satisfies Option<boolean>,
  json: JSON_FLAG,
}

/** As a shell has it after Ctrl-C. */
const EX_INTERRUPTED = 130

const progress = (line: string): void => void process.stderr.write(`  ${line}\n`)

async function demo(argv: readonly string[]): Promise<number> {
  const parsed = parseOptions(OPTIONS, argv, process.env)
  if (parsed.kind === 'help') {
    process.stdout.write(`npm start -- [--once]\n\n${describeOptions(OPTIONS)}\n`)
    return 0
  }
  if (parsed.kind === 'invalid') throw new UsageError(parsed.errors.join('\n'))
  const { once, json, pools, nodes, ...rest } = parsed.values
  let code = 1
  await runUntilSignal(async (signal) => {
    progress('making a small Internet of network namespaces: a cloud, and sites behind NAT')
    const options = {
      ...rest,
      until: 'nodes',
      ...(pools.length > 0 ? { pools } : {}),
      ...(nodes > 0 ? { nodes } : {}),
    } as const
    await using lab = await openLab(options, { signal, progress }).catch((error: unknown): undefined => {
      if (!signal.aborted) throw error
    })
    const measured = lab && (await Promise.race([measure(lab), aborted(signal)]))
    if (lab === undefined || measured === undefined) {
      code = EX_INTERRUPTED
      return progress('stopped; taking down what is there')
    }
    const faults = verdictOf(measured)
    if (json) process.stdout.write(`${JSON.stringify({ ...measured, faults })}\n`)
    else process.stdout.write(`\n${renderTimeline(measured)}\n`)
    for (const line of slownessOf(measured))
      process.stderr.write(`  slower than it should be (is the machine busy?): ${line}\n`)
    for (const fault of faults) process.stderr.write(`  short of what it should be: ${fault}\n`)
    code = faults.length === 0 ? 0 : 1
    if (once || signal.aborted) return
    await play(lab, measured, signal)
  })
  return code
}

async function measure(lab: Lab): Promise<FirstContact> {
  const { services, endpointSlices } = readFolder(lab.manifests)
  const [pair] = findPairs(lab, services, endpointSlices, 4)
  if (pair === undefined)
    throw new UsageError(
      'no Service here has all its endpoints in one pool and a pod in another to call it from; see test/lab/shop',
    )
  progress(
    `${pair.client.host} will call ${pair.service}, which only ${pair.server.pool} has; ${PACKETS_AFTER_MS / 10} packets run each way meanwhile`,
  )
  progress('starting the gateways')
  return measureFirstContact(lab, pair, progress)
}

/** Leaves the lab to whoever looks on. */
async function play(lab: Lab, { pair }: FirstContact, signal: AbortSignal): Promise<void> {
  const { daemons } = await lab.status()
  process.stdout.write(
    `\n${renderStatus(
      daemons.filter(({ status }) => status.kind !== 'agent'),
      Date.now(),
    )}\n`,
  )
  const run = `npm run -s lab --`
  const id = `--id ${lab.id}`
  process.stdout.write(`The lab goes on until Ctrl-C. In another terminal:
  ${run} status ${id}
  ${run} exec ${id} ${pair.client.host} -- curl -s ${pair.url}
  ${run} cut ${id} udp ${pair.server.pool}      the path falls back to the relay
  ${run} heal ${id} all           and becomes direct again
`)
  await aborted(signal)
  progress('taking the lab down')
}

endWithoutReader()
try {
  process.exitCode = await demo(process.argv.slice(2))
} catch (error) {
  process.stderr.write(
    `npm start: ${error instanceof UsageError ? error.message : error instanceof Error ? error.stack : String(error)}\n`,
  )
  process.exitCode = error instanceof UsageError ? 64 : 1
}
