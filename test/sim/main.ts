// npm run sim -- [--pools 10,100,1000] [--json]: what changes of a mesh cost at several sizes, in virtual time and in
// memory; the table on stdout, progress on stderr; exits with 1 if work grows faster than it may.

import { describeOptions, flag, integer, list, parseOptions, type Option } from '../../lib/config.ts'
import { costsOf } from './changes.ts'
import { growthOf, renderReport, shortfalls, type Sample } from './report.ts'
import { World } from './world.ts'

const OPTIONS = {
  pools: {
    name: 'pools',
    value: 'N,…',
    doc: 'sizes of the mesh',
    fallback: '10,100,1000',
    parse: list(integer(6, 10_000)),
  } satisfies Option<readonly number[]>,
  full: {
    name: 'full',
    value: 'N',
    doc: 'gateways that run in full; the others are sessions with the relay',
    fallback: '10',
    parse: integer(6, 1_000),
  } satisfies Option<number>,
  seed: { name: 'seed', value: 'N', doc: 'of all randomness', fallback: '1', parse: integer(0, 2 ** 31) },
  json: { name: 'json', doc: 'one JSON object on stdout', fallback: 'false', parse: flag } satisfies Option<boolean>,
}
const EX_USAGE = 64

const startedMs = performance.now()
const elapsed = performance.now.bind(performance)
const progress = (line: string): void =>
  void process.stderr.write(`[${((elapsed() - startedMs) / 1000).toFixed(1).padStart(6)} s] ${line}\n`)

async function simulate(sizes: readonly number[], full: number, seed: number): Promise<readonly Sample[]> {
  const samples: Sample[] = []
  for (const pools of sizes) {
    const world = await World.create({ pools, full: Math.min(full, pools), seed })
    try {
      samples.push({ pools, costs: await costsOf(world) })
    } finally {
      world.close()
    }
    progress(`${pools} pools`)
  }
  return samples
}

const parsed = parseOptions(OPTIONS, process.argv.slice(2), {})
switch (parsed.kind) {
  case 'help':
    process.stdout.write(`npm run sim -- [options]\n\n${describeOptions(OPTIONS)}\n`)
    break
  case 'invalid':
    for (const error of parsed.errors) process.stderr.write(`sim: ${error}\n`)
    process.exitCode = EX_USAGE
    break
  case 'ok': {
    const { pools, full, seed, json } = parsed.values
    const samples = await simulate(pools, full, seed)
    const growth = growthOf(samples)
    const broken = shortfalls(samples, growth)
    if (json) process.stdout.write(`${JSON.stringify({ samples, growth, broken, holds: broken.length === 0 })}\n`)
    else process.stdout.write(renderReport(samples, growth))
    for (const line of broken) process.stderr.write(`sim: ${line}\n`)
    process.exitCode = broken.length === 0 ? 0 : 1
  }
}
