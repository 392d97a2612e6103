import { spawn } from 'node:child_process'
import { createServer } from 'node:net'
import { once } from 'node:events'
import { existsSync, mkdtempSync, rmSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join, resolve } from 'node:path'
import t from 'tap'
import { createHost, isRoot } from '../lib/netns.ts'

const MAIN = resolve(import.meta.dirname, '../../cli/main.ts')

t.test('everything of ours goes, nothing else, and twice is once', { skip: !isRoot && 'needs root' }, async (t) => {
  const host = await createHost()
  t.teardown(() => host.close())
  const dir = mkdtempSync(join(tmpdir(), 'fulmar-'))
  t.teardown(() => rmSync(dir, { recursive: true }))
  await host.sh(`set -e
    nft 'add table ip fulmar; add table ip6 fulmar; add table ip fulmar-dns; add table inet fulmar-gateway; add table inet fulmar-relay; add table ip other; add table ip kube-proxy'
    ip addr add 169.254.20.53/32 dev lo; ip -6 addr add fd66:756c:6d61::53/128 dev lo; ip addr add 192.0.2.1/32 dev lo
    ip tuntap add fm-direct mode tun; ip link set fm-direct up; ip tuntap add other0 mode tun
    ip link add fm-vxlan type vxlan id 7077 dstport 7080 nolearning; ip link add flannel.1 type vxlan id 1 dstport 8472
    ip link set fm-vxlan up; ip rule add iif fm-direct lookup 7078 priority 5100
    ip route add 10.244.8.0/24 dev fm-vxlan table 7078 proto 177; nft add table inet fulmar-routes
    ip rule add not fwmark 0x46000000/0xff000000 lookup 7077 priority 5101
    ip route add 10.244.9.0/24 dev fm-direct table 7077 proto 178
    ip rule add iif fm-tcp lookup 9001 priority 4100; ip rule add not fwmark 0x46000000/0xff000000 lookup 9000 priority 4101
    ip route add 10.244.7.0/24 dev fm-direct table 9000 proto 177; ip rule add iif other0 lookup 9001 priority 4100
    ip route add 198.51.100.0/24 dev lo
    mkdir -p ${dir}/run ${dir}/state/identity; touch ${dir}/run/agent.sock ${dir}/state/identity/node.key ${dir}/state/notes.txt`)
  const pinned = `import { createMap } from '${import.meta.resolve('../../lib/bpf/map.ts')}'
    import { makePinFolder, pin } from '${import.meta.resolve('../../lib/bpf/pins.ts')}'
    await makePinFolder('/sys/fs/bpf/fulmar'); await makePinFolder('/sys/fs/bpf/other')
    const map = createMap('fm_peers', { type: 'hash', keyBytes: 4, valueBytes: 4, entries: 1 })
    for (const folder of ['fulmar', 'other']) pin('/sys/fs/bpf/' + folder + '/peers', map.fd)`
  await host.sh(`mount -t bpf bpf /sys/fs/bpf && ${process.execPath} --input-type=module -e "${pinned}"`)
  const cleanup = (...flags: string[]): Promise<string> =>
    host
      .sh(
        `${process.execPath} ${MAIN} cleanup --run-dir ${dir}/run --state-dir ${dir}/state ${flags.join(' ')} 2>&1; echo "exit $?"`,
      )
      .then((text) => text.replace(/^(.*control group |removed \/run\/wireguard).*\n/gm, ''))

  t.same((await cleanup()).split('\n'), [
    'removed nft table ip fulmar',
    'removed nft table ip6 fulmar',
    'removed nft table ip fulmar-dns',
    'removed nft table inet fulmar-gateway',
    'removed nft table inet fulmar-relay',
    'removed nft table inet fulmar-routes',
    'removed rule 5100 for table 7078 from fm-direct (IPv4)',
    'removed rule 5101 for table 7077 (IPv4)',
    'removed route 10.244.9.0/24 dev #2 table 7077 metric 0',
    'removed route 10.244.8.0/24 dev #4 table 7078 metric 0',
    'removed route 10.244.7.0/24 dev #2 table 9000 metric 0',
    'removed rule 4101 for table 9000 (IPv4)',
    'removed rule 4100 for table 9001 from fm-tcp (IPv4)',
    'removed device fm-direct',
    'removed device fm-vxlan',
    'removed address 169.254.20.53 on lo',
    'removed address fd66:756c:6d61::53 on lo',
    'removed BPF /sys/fs/bpf/fulmar/peers',
    `removed ${dir}/run/agent.sock`,
    `removed ${dir}/run`,
    'exit 0',
  ])
  t.equal(await cleanup(), 'nothing of Fulmar’s is on this machine\nexit 0')
  t.match(await host.sh('ip rule'), /4100:\s+from all iif other0 lookup 9001/)
  t.match(await host.sh('nft list tables'), /table ip other\ntable ip kube-proxy/)
  t.match(
    await host.sh('ip addr show dev lo; ip route; ip link'),
    /192\.0\.2\.1[\s\S]*198\.51\.100\.0[\s\S]*other0[\s\S]*flannel\.1/,
  )
  t.match(await host.sh('find /sys/fs/bpf -mindepth 1 -not -name *.debug'), /^\S+other\n\S+other\/peers$/)
  t.ok(existsSync(`${dir}/state/identity/node.key`), 'keys stay without --state')

  t.match(
    await cleanup('--state'),
    /removed .*identity\n[\s\S]*keeps notes\.txt, which Fulmar does not know\n(removed .*\n)?exit 1/,
  )
  t.notOk(existsSync(`${dir}/state/identity`))
})

t.test('a table that a living agent holds keeps no other', { skip: !isRoot && 'needs root' }, async (t) => {
  const host = await createHost()
  t.teardown(() => host.close())
  await host.sh('nft add table inet fulmar-gateway')
  const holding = `import { encodeBatch } from '${import.meta.resolve('../../lib/net/nft-batch.ts')}'
    import { openNftSocket } from '${import.meta.resolve('../../lib/net/nft-socket.ts')}'
    import { replaceTable } from '${import.meta.resolve('../../lib/net/nft-table.ts')}'
    const table = { family: 4, name: 'fulmar-dns', owned: true, sets: [], chains: [] }
    await openNftSocket().apply(encodeBatch(replaceTable(table)))
    console.log('held')
    process.stdin.resume()`
  const inside = ['--target', String(host.pid), '--net', process.execPath, '--input-type=module', '-e', holding]
  const agent = spawn('nsenter', inside, { stdio: ['pipe', 'pipe', 'inherit'] })
  t.teardown(() => agent.kill())
  await once(agent.stdout, 'data')
  const cleanup = () => host.sh(`${process.execPath} ${MAIN} cleanup --run-dir /nonexistent 2>&1; echo "exit $?"`)
  t.match(
    await cleanup(),
    /removed nft table inet fulmar-gateway\n[\s\S]*nft tables: ip fulmar-dns: held by an agent that runs; stop it first\n[\s\S]*exit 1/,
  )
  agent.kill('SIGKILL')
  await once(agent, 'exit')
  t.match(await cleanup(), /exit 0/, 'it went with its agent')
})

t.test('it refuses while a daemon lives', { skip: !isRoot && 'needs root' }, async (t) => {
  const host = await createHost()
  t.teardown(() => host.close())
  const dir = mkdtempSync(join(tmpdir(), 'fulmar-'))
  t.teardown(() => rmSync(dir, { recursive: true }))
  const daemon = createServer(() => {}).listen(join(dir, 'gateway.sock'))
  await once(daemon, 'listening')
  const answer = await host.sh(`${process.execPath} ${MAIN} cleanup --run-dir ${dir} 2>&1; echo "exit $?"`)
  t.match(answer, /fulmar gateway still answers in .*; stop it first, or use --force\nexit 64/)
  daemon.close()
})
