import t from 'tap'
import { awaitAgents, type FollowingAgents } from '../../gateway/agents-loop.ts'
import type { Pool } from '../../lib/k8s/pools.ts'
import { createLog } from '../../lib/log.ts'

const poolOf = (...gateways: readonly string[]): Pool => ({ name: 'p', gateways }) as unknown as Pool

t.test('a hand-over waits for whom it needs', async (t) => {
  type Row = readonly [
    name: string,
    gateways: readonly string[],
    active: boolean,
    lacks: readonly string[],
    looks: number,
  ]
  const rows: readonly Row[] = [
    ['all are there', ['h1', 'h2'], true, [], 0],
    ['a pool of one gateway', ['h1'], true, ['successor', 'h1'], 0],
    ['a standby', ['h1', 'h2'], false, ['successor', 'h1'], 0],
    ['nobody stands by', ['h1', 'h2'], true, ['successor', 'h1'], 1],
    ['its own agent is away', ['h1', 'h2'], true, ['h1'], 1],
    ['that of the next is away', ['h1', 'h2'], true, ['h2'], 1],
    ['both', ['h1', 'h2'], true, ['h1', 'h2'], 2],
  ]
  for (const [name, gateways, active, lacks, expected] of rows) {
    const missing = [...lacks]
    let looks = 0
    const has = (what: string): boolean => {
      if (!missing.includes(what)) return true
      // It is there when it is looked at next.
      missing.splice(missing.indexOf(what), 1)
      looks++
      return false
    }
    const agents: FollowingAgents = {
      node: 'h1',
      pool: () => poolOf(...gateways),
      isActive: () => active,
      successor: () => (has('successor') ? 'h2' : undefined),
      hasAgent: (node) => Promise.resolve(has(node)),
      log: createLog('test', 'silent'),
    }
    await awaitAgents(agents, new AbortController().signal)
    t.equal(looks, expected, name)
  }
})

t.test('not for ever', async (t) => {
  const warned: unknown[] = []
  const agents: FollowingAgents = {
    node: 'h1',
    pool: () => poolOf('h1', 'h2'),
    isActive: () => true,
    successor: () => 'h2',
    hasAgent: (node) => node !== 'h2',
    log: { warn: (what: unknown) => warned.push(what) } as unknown as FollowingAgents['log'],
  }
  await awaitAgents(agents, new AbortController().signal, 250)
  t.match(warned, [{ why: 'no agent runs on h2' }])
  const ending = new AbortController()
  ending.abort()
  await awaitAgents(agents, ending.signal)
  t.equal(warned.length, 1, 'nor where it ends anyway')
})
