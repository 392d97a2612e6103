// kubectl to nodes behind a symmetric NAT and behind one that lets TCP to port 443 out only; `npm run lab -- ops` does more.

import t from 'tap'
import { runOps } from './ops.ts'

t.setTimeout(120_000)

t.test('logs, exec and top', async (t) => {
  const options = {
    id: `op${process.pid % 100_000}`,
    rtt: 20,
    copyMib: 1,
    kubectl: ['kubectl'],
    sites: ['north', 'south'],
    protocols: ['websocket', 'spdy'],
    cases: ['logs', 'exec', 'top'],
    json: false,
  } as const
  const { nodes, faults } = await runOps(options, (line) => t.comment(line), new AbortController().signal)
  t.same(faults, [])
  t.same(
    nodes.map(({ node, nat }) => `${node} ${nat}`),
    ['north1 symmetric', 'south1 udp-blocked'],
  )
  t.ok(nodes.every(({ outcomes }) => outcomes.length === 4))
})
