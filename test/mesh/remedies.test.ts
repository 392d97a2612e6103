// What `fulmar paths` says of a better path is done to the letter, and the path is better.

import t from 'tap'
import { directOnce, openMesh, waysOnce } from './mesh.ts'

t.setTimeout(180_000)
const PAIR = ['north', 'south'] as const

t.test('a port forwarded as it says makes the path direct', async (t) => {
  const nat = new Map([
    ['north', 'symmetric'],
    ['south', 'port-restricted'],
  ] as const)
  const lab = await openMesh(t, 'r', { pools: PAIR, nodes: 1, nat })
  const relayed = await waysOnce(
    lab,
    PAIR,
    ({ rung, remedies }) => rung.startsWith('relay') && /forward UDP port/.test(remedies?.steps[0] ?? ''),
    'relayed, and told what would help',
  )
  const steps = relayed.map(({ path }) => path.remedies!.steps[0]!)
  t.equal(steps[0], steps[1], 'both sides say the same')
  const { stdout } = await lab.exec('north1', ['fulmar', 'paths', 'south'])
  t.match(
    stdout,
    /^north → south: relay-(udp|tcp) for [^\n]+\n[^]*NAT here +symmetric [^]*NAT there +port restricted cone /,
  )
  t.match(stdout.replaceAll(/\n +/g, ' '), `for a better path, one of - ${steps[0]} - `)
  t.ok(
    stdout.split('\n').every((line) => line.length <= 100),
    'in lines of 100 columns',
  )

  const said = /^on the router of (\w+), forward UDP port (\d+) of ([\d.]+) to ([\d.]+) port (\d+)$/.exec(steps[0]!)
  t.ok(said, steps[0]!)
  const [, pool, port, outside, host, inside] = said!
  const rules = `
    table ip forwarded {
      chain prerouting {
        type nat hook prerouting priority dstnat
        ip daddr ${outside} udp dport ${port} dnat to ${host}:${inside}
      }
    }
    insert rule inet firewall forward iifname "wan" ip daddr ${host} udp dport ${inside} accept
  `
  t.match(await lab.exec(`${pool}-nat`, ['nft', '-f', '-'], { input: rules }), { code: 0 })
  const ways = await directOnce(lab, PAIR)
  t.strictSame(
    ways.map(({ path }) => path.remedies),
    [undefined, undefined],
    'nothing is left to do',
  )
  const table = (await lab.exec('north1', ['fulmar', 'paths'])).stdout
  t.match(table, /\n +south +direct .* -\n/)
})
