// When endpoints were last called and last answered, as the kernel has it in nft sets.

import { spawn } from 'node:child_process'
import { createServer } from 'node:net'
import t from 'tap'
import { watchTable, WATCH_MS } from '../../../agent/call-watch.ts'
import { run } from '../../../lib/net/exec.ts'
import { openNftSets, readAges } from '../../../lib/net/nft-set.ts'
import { NFT_TABLE_WATCH } from '../../../lib/owned.ts'
import { enterCage } from '../../agent/cage.ts'
import { ip } from '../../agent/namespace.ts'
import { call } from '../../agent/peer.ts'
import { isRoot } from '../netns.ts'

const cage = isRoot ? enterCage('fmw-', import.meta.url) : undefined
if (!isRoot) t.test('needs root', { skip: true }, () => {})
if (cage !== undefined) {
  t.test('no bytes break the reader', async (t) => {
    for (let i = 0; i < 2_000; i++) {
      const bytes = Buffer.from(Array.from({ length: i % 120 }, (_, at) => (at * 31 + i * 17 + ((i * at) >> 3)) & 0xff))
      t.doesNotThrow(() => readAges(bytes, i % 2 === 0 ? 4 : 6, WATCH_MS, new Map()), { diagnostic: false })
    }
  })
  t.test('the kernel’s own count', async (t) => {
    const addresses = ['10.244.1.1', 'fd00:244:1::1'] as const
    ip('link', 'add', 'eth0', 'type', 'veth', 'peer', 'name', 'eth1')
    for (const link of ['eth0', 'eth1']) ip('link', 'set', link, 'up')
    ip('addr', 'add', '10.244.1.1/24', 'dev', 'eth0')
    ip('addr', 'add', 'fd00:244:1::1/64', 'dev', 'eth0', 'nodad')
    await run('nft', ['-f', '-'], { input: watchTable([]) })
    // Twice is as good as once, over what is there.
    await run('nft', ['-f', '-'], {
      input: watchTable(['10.244.0.0/16', '10.244.1.0/24', '10.244.1.1', 'fd00:244::/32']),
    })
    const sets = openNftSets(NFT_TABLE_WATCH, WATCH_MS)
    t.teardown(() => sets.close())
    t.equal((await sets.ages('called4', 4))?.size, 0)
    t.equal(await sets.ages('nothing', 4), undefined)
    const server = createServer((socket) => void socket.end('here\n'))
    await new Promise<void>((resolve) => server.listen(8080, '::', resolve))
    t.teardown(() => server.close())

    for (const [index, address] of addresses.entries()) {
      const family = index === 0 ? 4 : 6
      t.equal(await call('tcp', address, 8080), 'here', `IPv${family}`)
      await call('tcp', address, 8081).catch(() => undefined)
      // To where nobody is: a SYN on its way out, and nothing back.
      const nobody = family === 4 ? '10.244.1.77' : 'fd00:244:1::77'
      const child = spawn('timeout', ['0.3', 'bash', '-c', `exec 3<>/dev/tcp/${nobody}/8080`], { stdio: 'ignore' })
      await new Promise((resolve) => child.once('exit', resolve))
      const called = await sets.ages(`called${family}`, family)
      const answered = await sets.ages(`answered${family}`, family)
      t.ok(
        called?.has(`${address} 8080`) && called.has(`${address} 8081`),
        `IPv${family}: ${[...(called?.keys() ?? [])].join()}`,
      )
      t.strictSame([...(answered?.keys() ?? [])], [`${address} 8080`])
      t.ok(called?.has(`${nobody} 8080`), 'one that is not there')
      t.ok([...called!.values()].every((age) => age < 5_000))
    }
  })
}
