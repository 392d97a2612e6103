// A relay and an agent as processes on two hosts with a link between them, an HTTPS server as the kubelet, and curl in all the
// ways that lead to it, from the relay's host and from a control plane beside; then the relay is killed, and the link cut.

import { spawn, type ChildProcess } from 'node:child_process'
import { createHash } from 'node:crypto'
import { mkdir, mkdtemp, rm, writeFile } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { setTimeout as wait } from 'node:timers/promises'
import t from 'tap'
import { createClient, issueServer, validFor } from '../../lib/certificates.ts'
import { openAuthority } from '../../lib/net/authority.ts'
import { connect, createHost, isRoot, type Host } from '../lib/netns.ts'

const CLI = new URL('../../cli/main.ts', import.meta.url).pathname
const NODE = process.execPath
/** On its LAN, which the cloud has no route to. */
const ADDRESSES = ['192.168.77.7', '192.168.78.7']
const NODE_OBJECT = {
  apiVersion: 'v1',
  kind: 'Node',
  metadata: { name: 'edge-7' },
  status: { addresses: ADDRESSES.map((address) => ({ type: 'InternalIP', address })) },
}
/** What stands for a kubelet: `/healthz`, `/big` of 8 MiB, and `/logs`, which goes on until its client has gone. */
const KUBELET = `
import { createServer } from 'node:https'
import { readFileSync } from 'node:fs'
let following = 0
createServer({ key: readFileSync(import.meta.dirname + '/kubelet.key'), cert: readFileSync(import.meta.dirname + '/kubelet.crt') }, (request, response) => {
  if (request.url === '/big') return response.end(Buffer.alloc(8 << 20, 97))
  if (request.url === '/following') return response.end(String(following))
  if (request.url !== '/logs') return response.end('ok from the kubelet')
  following++
  const timer = setInterval(() => response.write('line\\n'), 50)
  response.once('close', () => {
    clearInterval(timer)
    following--
  })
}).listen(10250, '127.0.0.1')
`

if (!isRoot) t.pass('needs root for network namespaces')
else {
  t.setTimeout(120_000)
  const folder = await mkdtemp(join(tmpdir(), 'fulmar-ops-'))
  const [cloud, edge, control] = await Promise.all([createHost(), createHost(), createHost()])
  const children: ChildProcess[] = []
  t.teardown(async () => {
    for (const child of children) child.kill('SIGKILL')
    await Promise.all([cloud, edge, control].map((host) => host.close()))
    await rm(folder, { recursive: true })
  })
  await connect('wan', [cloud, '192.0.2.1/24'], [edge, '192.0.2.7/24'])
  await connect('lan', [cloud, '10.0.0.1/24'], [control, '10.0.0.2/24'])

  const start = (host: Host, ...command: string[]): ChildProcess => {
    const child = spawn('nsenter', ['--target', String(host.pid), '--net', '--mount', ...command], {
      stdio: ['ignore', 'ignore', 'inherit'],
    })
    children.push(child)
    return child
  }
  const authority = await openAuthority(join(folder, 'relay'), Date.now())
  const file = (name: string, text: string): Promise<void> => writeFile(join(folder, name), text)
  const kubelet = await issueServer(authority, ['edge-7', ...ADDRESSES], validFor(Date.now(), 1))
  const client = await createClient(
    authority,
    { commonName: 'kube-apiserver', organization: undefined },
    validFor(Date.now(), 1),
  )
  await mkdir(join(folder, 'manifests'))
  await Promise.all([
    file('kubelet.key', kubelet.keyPem),
    file('kubelet.crt', kubelet.certificatePem),
    file('client.key', client.keyPem),
    file('client.crt', client.certificatePem),
    file('ca.crt', authority.certificatePem),
    file('kubelet.mjs', KUBELET),
    file('users', `prometheus ${createHash('sha256').update('secret').digest('hex')} edge-* 10250\n`),
    file('manifests/nodes.json', JSON.stringify(NODE_OBJECT)),
  ])
  const startRelay = (): ChildProcess =>
    start(
      cloud,
      NODE,
      CLI,
      'relay',
      ...['--listen=192.0.2.1:443', '--public=192.0.2.1', '--log-level=error'],
      ...[
        `--state-dir=${folder}/relay`,
        `--run-dir=${folder}/run-relay`,
        `--manifests=${folder}/manifests`,
        `--egress-socket=${folder}/egress.sock`,
        '--egress-listen=192.0.2.1:8131',
        '--kubelet-listen=0.0.0.0:10250',
        `--proxy-users=${folder}/users`,
      ],
    )
  let relay = startRelay()
  start(edge, NODE, join(folder, 'kubelet.mjs'))
  const token = (await cloud.sh(`${NODE} ${CLI} token create --node edge-7 --state-dir ${folder}/relay`)).trim()
  const joinCommand = `${NODE} ${CLI} join --relay https://192.0.2.1 --token ${token.split(' ').at(-1)} --state-dir ${folder}/edge`
  for (let i = 0; ; i++) {
    const joined = await edge.sh(joinCommand).then(
      () => true,
      () => false,
    )
    if (joined) break
    if (i === 40) throw new Error('the node cannot join')
    await wait(250)
  }
  start(
    edge,
    NODE,
    CLI,
    'agent',
    '--log-level=error',
    '--service-path=nft',
    ...[`--state-dir=${folder}/edge`, `--run-dir=${folder}/run-edge`],
  )

  /** @returns what it printed, errors too. */
  const curl = (words: string): Promise<string> =>
    cloud.sh(`cd ${folder} && curl -sS --max-time 15 --cacert ca.crt ${words} 2>&1 || true`)
  const BY_EGRESS =
    '--proxy https://192.0.2.1:8131 --proxy-cacert ca.crt --proxy-cert client.crt --proxy-key client.key'
  const BY_TOKEN = '--proxy https://prometheus:secret@192.0.2.1:443 --proxy-cacert ca.crt'
  const BY_NAME = '--connect-to edge-7:10250:192.0.2.1:10250'
  const reached = async (): Promise<number> => {
    const startMs = performance.now()
    while (!(await curl(`${BY_EGRESS} https://edge-7:10250/healthz`)).includes('ok from the kubelet')) {
      if (performance.now() - startMs > 60_000) throw new Error('edge-7 is not reached')
      await wait(100)
    }
    return performance.now() - startMs
  }
  await reached()

  t.test('every way in, with TLS from end to end', async (t) => {
    for (const [name, way] of Object.entries({ BY_EGRESS, BY_TOKEN, BY_NAME })) {
      t.equal(await curl(`${way} https://edge-7:10250/healthz`), 'ok from the kubelet', name)
      t.match(await curl(`${way} -o /dev/null -w '%{size_download}' https://edge-7:10250/big`), '8388608', name)
    }
    t.match(await curl(`${BY_TOKEN.replace('secret', 'guess')} https://edge-7:10250/`), /407/, 'a wrong token')
    t.match(await curl(`${BY_TOKEN} https://edge-7:22/`), /403/, 'a port that is not granted')
    t.match(await curl(`${BY_EGRESS} https://edge-9:10250/`), /50[02]/, 'a node that there is not')
    t.match(
      await curl(`--proxy https://192.0.2.1:8131 --proxy-cacert ca.crt https://edge-7:10250/`),
      /curl: \(\d+\)/,
      'without a certificate',
    )
    t.match(await curl(`${BY_EGRESS} -v https://edge-7:22/`), /403 edge-7: edge-7:22 is not open to the cloud/)
  })

  t.test('clients that dial the address of a node and name none', async (t) => {
    const [routed, translated] = ADDRESSES.map((address) => `https://${address}:10250/healthz`)
    // Both addresses lead nowhere by themselves.
    await cloud.sh('ip route add default via 192.0.2.7')
    await cloud.sh('ip route add local 192.168.77.0/24 dev lo')
    await cloud.sh(`nft -f - <<'EOF'
table ip kubelets {
  chain output {
    type nat hook output priority -100;
    ip daddr 192.168.78.0/24 tcp dport 10250 redirect to :10250
  }
  chain prerouting {
    type nat hook prerouting priority -100;
    ip daddr 192.168.78.0/24 tcp dport 10250 redirect to :10250
  }
}
EOF`)
    t.equal(await curl(routed!), 'ok from the kubelet', 'routed, and its certificate is verified by the address')
    t.equal(await curl(translated!), 'ok from the kubelet', 'translated')
    await control.sh('ip route add 192.168.0.0/16 via 10.0.0.1')
    for (const url of [routed!, translated!])
      t.equal(
        await control.sh(`curl -sS --max-time 15 --cacert ${folder}/ca.crt ${url} 2>&1 || true`),
        'ok from the kubelet',
        `${url} from another host of the control plane`,
      )
    t.match(await curl('https://192.168.77.9:10250/healthz'), /unrecognized name/, 'an address of no node')
  })

  t.test('Ctrl-C of a follower reaches the kubelet within a second', async (t) => {
    const follower = start(
      cloud,
      'sh',
      '-c',
      `cd ${folder} && exec curl -sS --cacert ca.crt ${BY_EGRESS} -o /dev/null https://edge-7:10250/logs`,
    )
    const following = (): Promise<string> => curl(`${BY_EGRESS} https://edge-7:10250/following`)
    for (let i = 0; i < 100 && (await following()) !== '1'; i++) await wait(50)
    t.equal(await following(), '1')
    follower.kill('SIGINT')
    const startMs = performance.now()
    while ((await following()) !== '0' && performance.now() - startMs < 5_000) await wait(20)
    t.ok(performance.now() - startMs < 1_500, `${Math.round(performance.now() - startMs)} ms, with curl's own`)
  })

  t.test('the relay is killed and comes back: so does the way', async (t) => {
    relay.kill('SIGKILL')
    await wait(300)
    relay = startRelay()
    const ms = await reached()
    t.ok(ms < 30_000, `${Math.round(ms)} ms`)
  })

  t.test('a link that dies without a word is told within 10 s', async (t) => {
    await edge.sh('ip link set wan down')
    const startMs = performance.now()
    const answer = await curl(`${BY_EGRESS} -v https://edge-7:10250/healthz`)
    t.match(answer, /503 edge-7 does not answer/)
    t.ok(performance.now() - startMs < 10_000, `${Math.round(performance.now() - startMs)} ms`)
    t.match(await curl(`${BY_EGRESS} -v https://edge-7:10250/healthz`), /503 edge-7 offline /)
    await edge.sh('ip link set wan up')
    t.ok((await reached()) < 60_000, 'and the way is back with the link')
  })
}
