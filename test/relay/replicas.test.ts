import t from 'tap'
import { parseReplicas } from '../../lib/replicas.ts'
import { isReplica, ownReplica } from '../../relay/replicas.ts'

t.test('a relay finds itself', (t) => {
  const list = parseReplicas('https://a.example,https://203.0.113.12+https://[2001:db8::12],https://c.example:8443')
  const rows: readonly [hosts: readonly string[], port: number, own: number | RegExp][] = [
    [['a.example'], 443, 0],
    [['2001:db8::12', '198.51.100.1'], 443, 1],
    [['203.0.113.12'], 443, 1],
    [['c.example'], 8443, 2],
    [['c.example'], 443, /none of them is this relay/],
    [['a.example', '203.0.113.12'], 443, /https:\/\/a.example:443 and https:\/\/203.0.113.12:443 are both this relay/],
  ]
  for (const [hosts, port, own] of rows)
    if (typeof own === 'number') t.equal(ownReplica(list, hosts, port), list[own], hosts.join())
    else t.throws(() => ownReplica(list, hosts, port), { message: own }, hosts.join())
  t.end()
})

t.test('only a certificate of the group is a replica', (t) => {
  t.ok(isReplica({ kind: 'user', user: 'fulmar-relay', groups: ['system:fulmar:relays'] }))
  t.notOk(isReplica({ kind: 'user', user: 'system:fulmar:relays', groups: ['system:masters'] }))
  t.notOk(isReplica({ kind: 'node', node: 'edge-7' }))
  t.notOk(isReplica({ kind: 'anonymous' }))
  t.end()
})
