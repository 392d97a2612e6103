import t from 'tap'
import { formerOf, ruleText } from '../../../lib/net/former-numbers.ts'
import { NUMBERS, PROTOCOL_AGENT, PROTOCOL_GATEWAY } from '../../../lib/owned.ts'
import type { Rule } from '../../../lib/routes.ts'
import { createHost, isRoot } from '../netns.ts'

const plain = { family: 4, invert: false, mark: 0, mask: 0 } as const
const back = (table: number, priority: number, arrivedOn = 'fm-direct'): Rule => ({
  ...plain,
  table,
  priority,
  arrivedOn,
})
const lead = (table: number, priority: number): Rule => ({ ...plain, invert: true, mark: 1, mask: 1, table, priority })

t.test('what another choice of numbers left', async (t) => {
  const now = [back(7078, 5100), lead(7077, 5101)]
  const rows: readonly [name: string, rules: readonly Rule[], tables: readonly number[], former: readonly Rule[]][] = [
    ['nothing', now, [], []],
    ['other tables', [...now, back(9001, 5100), lead(9000, 5101)], [9000, 9001], [lead(9000, 5101), back(9001, 5100)]],
    ['another preference', [...now, back(7078, 90), lead(7077, 91)], [], [lead(7077, 91), back(7078, 90)]],
    ['a table that is in use now', [...now, back(7077, 90), lead(7076, 91)], [7076], [lead(7076, 91), back(7077, 90)]],
    ['others’ devices', [...now, back(9001, 5100, 'eth0'), lead(9000, 5101)], [], []],
    ['others’ rules', [...now, back(9001, 5100), lead(8000, 5101)], [9000, 9001], [back(9001, 5100)]],
  ]
  for (const [name, rules, tables, former] of rows)
    t.strictSame(formerOf(rules, NUMBERS), { tables, rules: former }, name)
  t.equal(ruleText(back(9001, 5100)), 'rule 5100 for table 9001 from fm-direct (IPv4)')
})

t.test('rules go with the last daemon that has routes there', { skip: !isRoot && 'needs root' }, async (t) => {
  const host = await createHost()
  t.teardown(() => host.close())
  await host.sh(`set -e
    ip tuntap add fm-direct mode tun; ip link set fm-direct up
    ip rule add iif fm-direct lookup 9001 priority 5100; ip rule add not fwmark 1 lookup 9000 priority 5101
    ip route add 10.244.7.0/24 dev fm-direct table 9000 proto 177; ip route add 10.244.8.0/24 dev fm-direct table 9000 proto 178`)
  const module = import.meta.resolve('../../../lib/net/former-numbers.ts')
  const remove = async (protocol: number): Promise<readonly string[]> => {
    const source = `import { removeFormer } from "${module}"; console.log(JSON.stringify(await removeFormer(${JSON.stringify(NUMBERS)}, [${protocol}])))`
    return JSON.parse(await host.sh(`${process.execPath} --input-type=module -e '${source}'`)) as string[]
  }
  t.strictSame(await remove(PROTOCOL_AGENT), ['route 10.244.7.0/24 dev #2 table 9000 metric 0'])
  t.match(await host.sh('ip rule'), /lookup 9000/, 'the gateway still has routes there')
  t.strictSame(await remove(PROTOCOL_GATEWAY), [
    'route 10.244.8.0/24 dev #2 table 9000 metric 0',
    'rule 5101 for table 9000 (IPv4)',
    'rule 5100 for table 9001 from fm-direct (IPv4)',
  ])
  t.strictSame(await remove(PROTOCOL_GATEWAY), [])
  t.notMatch(await host.sh('ip rule; ip route show table all'), /900[01]/)
})
