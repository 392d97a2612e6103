// Elements of a map, as nft lists what netlink was told.

import t from 'tap'
import { run } from '../../../lib/net/exec.ts'
import { encodeBatch, type Element, type ElementChange } from '../../../lib/net/nft-batch.ts'
import { BATCH_BYTES_MAX, openNftSocket } from '../../../lib/net/nft-socket.ts'
import { enterCage } from '../../agent/cage.ts'
import { isRoot } from '../netns.ts'

const FAMILIES = [
  { family: 4, ip: 'ip', type: 'ipv4_addr', key: [10, 96, 0, 10], value: [169, 254, 20, 53] },
  {
    family: 6,
    ip: 'ip6',
    type: 'ipv6_addr',
    key: [0xfd, ...Array.from({ length: 14 }, () => 0), 10],
    value: [0xfd, ...Array.from({ length: 14 }, () => 0), 53],
  },
] as const
const TEXT = {
  4: '10.96.0.10 . udp . 53 timeout 30s : 169.254.20.53 . 53',
  6: 'fd00::a . udp . 53 timeout 30s : fd00::35 . 53',
}

const compare = (a: string, b: string): number => Number(a) - Number(b)

const cage = isRoot ? enterCage('fmw-', import.meta.url) : undefined
if (!isRoot) t.test('needs root', { skip: true }, () => {})
if (cage !== undefined)
  for (const { family, ip, type, key, value } of FAMILIES)
    t.test(`IPv${family}`, async (t) => {
      const listed = async (): Promise<readonly string[]> => {
        const text = await run('nft', ['list', 'map', ip, 'test', 'm'])
        const elements = /elements = \{([^}]*)\}/.exec(text)?.[1]!.split(',') ?? []
        return elements.map((element) => element.replace(/expires \S+ /, '').trim())
      }
      const element = (port: number, timeoutMs: number): Element => ({
        key: Buffer.from([...key, 17, 0, 0, 0, port >> 8, port, 0, 0]),
        value: Buffer.from([...value, 0, 53, 0, 0]),
        timeoutMs,
      })
      const change = (kind: ElementChange['kind'], port = 53, timeoutMs = 30_000): ElementChange => ({
        ...{ kind, family, table: 'test', set: 'm' },
        elements: [element(port, timeoutMs)],
      })
      await run('nft', ['-f', '-'], {
        input: `table ${ip} test { map m { type ${type} . inet_proto . inet_service : ${type} . inet_service; flags timeout; }; }\n`,
      })
      const elements = openNftSocket()
      t.teardown(() => elements.close())
      const apply = (...changes: readonly ElementChange[]) => elements.apply(encodeBatch(changes))

      const once = encodeBatch([change('add')])
      await elements.apply(once)
      t.strictSame(await listed(), [TEXT[family]])
      await apply(change('add'), change('delete'), change('add', 53, 60_000))
      t.strictSame(await listed(), [TEXT[family].replace('30s', '1m')], 'another time-out')
      await t.rejects(apply(change('add', 54), change('delete', 55)), /ENOENT/)
      t.equal((await listed()).length, 1, 'all or nothing')
      const both = [apply(change('add', 54)), apply(change('add', 55), change('delete', 53))]
      await Promise.all(both)
      t.strictSame(
        (await listed()).map((text) => /udp . (\d+)/.exec(text)![1]!).toSorted(compare),
        ['54', '55'],
        'in order',
      )
      await elements.apply(once)
      t.equal((await listed()).length, 3, 'again')
      const ports = Array.from({ length: 1_500 }, (_, i) => 1_000 + i)
      const many = (kind: ElementChange['kind'], elements = ports.map((port) => element(port, 30_000))): Buffer =>
        encodeBatch([{ ...change(kind), elements }])
      t.ok(many('add').length <= BATCH_BYTES_MAX)
      await elements.apply(many('add'))
      t.equal((await listed()).length, 3 + ports.length, 'more than a message holds')
      await t.rejects(
        elements.apply(
          many(
            'delete',
            [...ports, 999].map((port) => element(port, 0)),
          ),
        ),
        /ENOENT/,
      )
      t.equal((await listed()).length, 3 + ports.length, 'all or nothing, of several messages')
      await elements.apply(many('delete'))
      t.equal((await listed()).length, 3)
      await run('nft', ['delete', 'table', ip, 'test'])
      await t.rejects(elements.apply(once), /ENOENT/, 'no such table')
    })
