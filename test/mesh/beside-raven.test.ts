// Moving over from Raven and back, in the lab: as long as its rule is there, packets between pools are Raven's; from the
// moment it is gone, ours. The rules are those that Raven sets; behind them is a device that leads nowhere.

import t from 'tap'
import type { Diagnosis } from '../../lib/doctor.ts'
import type { Lab } from '../lab/lab.ts'
import { addressOf, directOnce, get, openMesh, UNLESS_LONG, until } from './mesh.ts'

t.setTimeout(200_000)
const POOLS = ['bay', 'cape'] as const
const MARK = '0x40'

/** On a node: packets for these prefixes go by Raven's table. */
const raven = (prefixes: readonly string[]): string => `
ip link add raven0 type vxlan id 200 dstport 4472
ip link set raven0 up
ip route add default dev raven0 table 9027
nft add table ip raven
nft 'add chain ip raven pre { type filter hook prerouting priority mangle; }'
nft 'add chain ip raven out { type route hook output priority mangle; }'
for chain in pre out; do nft add rule ip raven $chain ip daddr { ${prefixes.join(', ')} } meta mark set ${MARK}; done
ip rule add pref 100 fwmark ${MARK} lookup 9027`

t.test('from Raven and back', { skip: UNLESS_LONG }, async (t) => {
  const lab = await openMesh(t, 'r', { pools: POOLS })
  await directOnce(lab, POOLS)
  const sh = async (host: string, script: string): Promise<void> => {
    const { code, stderr } = await lab.exec(host, ['sh', '-ec', script])
    if (code !== 0) throw new Error(`${host}: ${stderr}`)
  }
  const others = lab.topology.nodes
    .filter(({ name }) => name !== 'bay1')
    .flatMap(({ podCidrs }) => podCidrs.filter((cidr) => !cidr.includes(':')))
  const url = `http://${addressOf(lab, 'cape1-shop', 4)}:8080/`
  const calls = async (): Promise<boolean> => (await get(lab, 'bay1-client', [url], 4)).length === 1
  t.ok(await calls(), 'ours, without Raven')

  await sh('bay1', raven(others))
  t.notOk(await calls(), 'Raven’s rule comes before ours')
  t.match(await rulesAt(lab), { verdict: 'note', found: /^rule 100 is Raven’s/ })
  const { remedy = '' } = await rulesAt(lab)
  const [, command = ''] = /here: (.*)$/.exec(remedy) ?? []
  t.equal(command, 'ip rule del pref 100 fwmark 0x40; ip link del raven0', 'as the guide has it')
  await sh('bay1', command)
  await until('ours again', calls)
  t.match(await rulesAt(lab), { verdict: 'fine' })

  await sh('bay1', `ip rule add pref 100 fwmark ${MARK} lookup 9027; ip route add unreachable default table 9027`)
  t.notOk(await calls(), 'and back: Raven’s once more')
})

async function rulesAt(lab: Lab): Promise<Partial<Diagnosis>> {
  const { stdout } = await lab.exec('bay1', ['fulmar', 'doctor', '--json'])
  const { diagnoses } = JSON.parse(stdout) as { readonly diagnoses: readonly Diagnosis[] }
  return diagnoses.find(({ name }) => name === 'routing rules') ?? {}
}
