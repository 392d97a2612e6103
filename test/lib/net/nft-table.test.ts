// Tables as nft lists them; what they do to packets is seen in test/agent/takeover-loop.test.ts.

import t from 'tap'
import { run } from '../../../lib/net/exec.ts'
import { encodeBatch } from '../../../lib/net/nft-batch.ts'
import { openNftSocket } from '../../../lib/net/nft-socket.ts'
import { replaceTable, type NftTable } from '../../../lib/net/nft-table.ts'
import { enterCage } from '../../agent/cage.ts'
import { isRoot, until } from '../netns.ts'

const table = (owned: boolean, zone: number): NftTable => ({
  family: 6,
  name: 'test',
  owned,
  sets: [
    { name: 'm', key: ['address', 'protocol', 'port'], value: ['address', 'port'] },
    { name: 's', key: ['address', 'protocol', 'port'] },
  ],
  chains: [
    {
      name: 'early',
      type: 'filter',
      hook: 'output',
      priority: -301,
      rules: [{ kind: 'zone', of: 'source', port: 5353, set: 's', zone }],
    },
    { name: 'dnat', type: 'nat', hook: 'prerouting', priority: -99, rules: [{ kind: 'translate', map: 'm' }] },
  ],
})
const listing = (owned: boolean, zone: number): RegExp =>
  new RegExp(
    [
      `^table ip6 test \\{${owned ? ' # progname .*\n\tflags owner\n' : ''}`,
      '\tmap m \\{',
      '\t\ttype ipv6_addr \\. inet_proto \\. inet_service : ipv6_addr \\. inet_service',
      '\t\tflags timeout',
      '\t\\}',
      '',
      '\tset s \\{',
      '\t\ttype ipv6_addr \\. inet_proto \\. inet_service',
      '\t\tflags timeout',
      '\t\\}',
      '',
      '\tchain early \\{',
      '\t\ttype filter hook output priority (raw - 1|-301); policy accept;',
      `\t\tth sport 5353 ip6 saddr \\. meta l4proto \\. th sport @s ct zone set ${zone}`,
      '\t\\}',
      '',
      '\tchain dnat \\{',
      '\t\ttype nat hook prerouting priority (dstnat \\+ 1|-99); policy accept;',
      '\t\tdnat ip6 to ip6 daddr \\. meta l4proto \\. th dport map @m',
      '\t\\}',
      '\\}$',
    ].join('\n'),
  )

const cage = isRoot ? enterCage('fmt-', import.meta.url) : undefined
if (!isRoot) t.test('needs root', { skip: true }, () => {})
if (cage !== undefined) {
  const list = () => run('nft', ['list', 'ruleset'])
  for (const owned of [false, true])
    t.test(owned ? 'of an owner' : "nobody's own", async (t) => {
      const socket = openNftSocket()
      for (const zone of [1, 259]) {
        await socket.apply(encodeBatch(replaceTable(table(owned, zone))))
        t.match(await list(), listing(owned, zone))
      }
      const other = openNftSocket()
      const change = other.apply(encodeBatch(replaceTable(table(false, 7))))
      if (owned) await t.rejects(change, /EPERM/)
      else await change
      socket.close()
      if (owned) await until('it went with its owner', 10_000, async () => (await list()) === '')
      else t.match(await list(), listing(false, 7))
      other.close()
    })
}
