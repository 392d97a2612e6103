// What a node is before Fulmar, and after `fulmar cleanup --state`: rules, links, addresses, routes, BPF and files are the same.

import t from 'tap'
import { openLab } from '../lab/lab.ts'
import { isRoot } from '../lib/netns.ts'
import { listings } from './listing.ts'

t.setTimeout(120_000)

t.test('nothing is left', { skip: !isRoot && 'needs root' }, async (t) => {
  let before: readonly string[] = []
  const lab = await openLab({
    id: `lc${process.pid % 100_000}n`,
    pools: ['bay', 'cape'],
    nodes: 1,
    restart: false,
    prepare: async (made) => {
      before = await listings(made)
    },
  })
  t.teardown(() => lab.close())
  const hosts = lab.topology.nodes.map(({ name }) => name)
  const during = await listings(lab)
  for (const [index, host] of hosts.entries()) {
    t.match(
      during[index],
      /table inet fulmar-gateway[\s\S]*fm-direct[\s\S]*\/var\/lib\/fulmar\/identity/,
      `${host} has it all`,
    )
    t.not(during[index], before[index])
  }
  const daemons = [
    ...hosts.flatMap((host) => (['gateway', 'agent'] as const).map((daemon) => [host, daemon] as const)),
    ['cloud', 'relay'] as const,
  ]
  await Promise.all(daemons.map(([host, daemon]) => lab.stop(host, daemon)))
  for (const host of hosts) {
    const { code, stdout, stderr } = await lab.exec(host, ['fulmar', 'cleanup', '--state'])
    t.equal(code, 0, `${host}: ${stderr.split('\n').slice(1).join(' ')}`)
    t.match(stdout, /removed .*fm-direct/)
  }
  t.strictSame(await listings(lab), before)
  for (const host of hosts)
    t.equal((await lab.exec(host, ['fulmar', 'cleanup', '--state'])).stdout, 'nothing of Fulmar’s is on this machine\n')
})
