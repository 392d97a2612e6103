// Run in the guest only, whose kernel has WireGuard: the gateways of a mesh use it, and say so.

import t from 'tap'
import { directOnce, gatewaysOf, openMesh } from '../mesh/mesh.ts'

t.setTimeout(120_000)

t.test('gateways use the WireGuard of the kernel', async (t) => {
  const lab = await openMesh(t, 'k', { pools: ['ford', 'glen'], nodes: 1 })
  await directOnce(lab, ['ford', 'glen'])
  const gateways = await gatewaysOf(lab)
  t.strictSame(
    gateways.map(({ node, wireguard }) => `${node} ${wireguard.implementation}`).toSorted(),
    ['cloud kernel', 'ford1 kernel', 'glen1 kernel'],
    'status',
  )
  t.match((await lab.exec('ford1', ['fulmar', 'status'])).stdout, /^ +ford1 .* kernel /m, 'status as text')
  const links = (await lab.exec('ford1', ['ip', '-br', 'link', 'show', 'type', 'wireguard'])).stdout
  t.match(links, /^fm-direct [\s\S]*^fm-tcp /m, 'devices')
  t.equal((await lab.exec('ford1', ['pgrep', 'wireguard-go'])).stdout, '', 'no wireguard-go runs')
})
