// A takeover of the cluster DNS over real nft: clients that keep their socket, on the node and in a pod, while its holder
// is killed, comes back and hangs. `take`, as an argument, is that holder.

import { execFileSync, spawn, type ChildProcess } from 'node:child_process'
import { createSocket } from 'node:dgram'
import { once } from 'node:events'
import { fileURLToPath } from 'node:url'
import packet from 'dns-packet'
import t from 'tap'
import { runTakeover } from '../../agent/takeover-loop.ts'
import type { Takeover } from '../../agent/takeover.ts'
import { createLog } from '../../lib/log.ts'
import { addPod, enterNamespace, ip } from './namespace.ts'
import { until } from '../lib/netns.ts'
import { askEach, askFrom } from './peer.ts'

/** Very many processes are started, each of which takes its time where much else runs. */
t.setTimeout(120_000)

const NAME = 'web.shop.svc.cluster.local'
const TAKEOVERS: readonly Takeover[] = [
  { family: 4, clusterIp: '10.96.0.10', to: '169.254.20.53' },
  { family: 6, clusterIp: 'fd00:96::10', to: 'fd66:756c:6d61::53' },
]
/** By whom a question is answered. */
const ANSWERS = { agent: ['192.0.2.1', '2001:db8::1'], cluster: ['192.0.2.2', '2001:db8::2'] } as const
const PATIENCE_MS = 25_000
const ASKED_MAX = 5_000

const isHolder = process.argv[2] === 'take'
if (isHolder) {
  const log = createLog('test', process.env['LOG'] ?? 'silent')
  const life = new AbortController()
  const { problems, done } = runTakeover(
    { takeovers: () => TAKEOVERS, onBegan: () => console.log('began'), onTick: () => undefined, log },
    life.signal,
  )
  process.on('SIGTERM', () => life.abort())
  await done
  console.log(problems().join())
}

const test = isHolder ? undefined : enterNamespace('fmt-', import.meta.url)
if (test !== undefined) {
  const nft = (...args: string[]): string => execFileSync('nft', args, { encoding: 'utf8' })
  execFileSync('sysctl', ['-qw', 'net.ipv4.ip_forward=1', 'net.ipv6.conf.all.forwarding=1'])
  const [dns, pod] = ['dns', 'pod'].map((name, i) =>
    addPod(test, name, [
      [`10.244.1.${i + 2}`, '10.244.1.1'],
      [`fd00:244:1::${i + 2}`, 'fd00:244:1::1'],
    ]),
  ) as [string, string]
  ip('route', 'add', 'default', 'via', '10.244.1.2')
  ip('route', 'add', 'default', 'via', 'fd00:244:1::2')

  const children: ChildProcess[] = []
  const start = async (program: string, ...words: readonly string[]): Promise<ChildProcess> => {
    const child = spawn(program, words, { stdio: ['pipe', 'pipe', 'inherit'] })
    children.push(child)
    await once(child.stdout, 'data')
    return child
  }
  const hold = () => start(process.execPath, fileURLToPath(import.meta.url), 'take')
  const server = fileURLToPath(import.meta.resolve('../contract/fault-dns.ts'))
  await start('ip', 'netns', 'exec', dns, process.execPath, server, NAME, ...ANSWERS.cluster)
  for (const [i, { family, to }] of TAKEOVERS.entries()) {
    ip('addr', 'add', `${to}/${family === 4 ? 32 : 128}`, 'dev', 'lo', ...(family === 4 ? [] : ['nodad']))
    const socket = createSocket(family === 4 ? 'udp4' : 'udp6')
    socket.on('message', (bytes, from) => {
      const { questions } = packet.decode(bytes)
      const answers = [{ name: NAME, type: questions![0]!.type as 'A', data: ANSWERS.agent[i]! }]
      socket.send(
        packet.encode({ type: 'response', id: bytes.readUInt16BE(0), questions, answers }),
        from.port,
        from.address,
      )
    })
    await new Promise<void>((resolve) => socket.bind(53, to, resolve))
    t.teardown(() => socket.close())
  }
  t.teardown(() => children.forEach((child) => child.kill('SIGKILL')))

  /** The cluster DNS as the services' rules lead to it. */
  const serve = (): void => {
    for (const [word, address, target] of [
      ['ip', '10.96.0.10', '10.244.1.2:53'],
      ['ip6', 'fd00:96::10', '[fd00:244:1::2]:53'],
    ] as const)
      for (const hook of ['prerouting', 'output'])
        nft(
          `table ${word} services { chain ${hook} { type nat hook ${hook} priority -101; ${word} daddr ${address} udp dport 53 dnat to ${target}; }; }`,
        )
  }
  serve()

  const asWhom = (answer: string): string =>
    Object.entries(ANSWERS).find(([, own]) => own.some((address) => address === answer))?.[0] ?? answer
  /** One on the node and one in a pod, over each family. */
  const clients = [`${test}-host`, pod].flatMap((from) =>
    TAKEOVERS.map(({ family, clusterIp }) => [from, clusterIp, NAME, family === 4 ? 'A' : 'AAAA'] as const),
  )
  /** Each over a socket of its own. */
  const answeredBy = (by: string): Promise<number> =>
    until(`names are answered by the ${by}`, PATIENCE_MS, async () =>
      (await Promise.all(clients.map((client) => askFrom(...client, 1)))).every(
        ([found]) => found !== undefined && asWhom(found.answer) === by,
      ),
    )

  let holder = await hold()
  const end = async (signal: NodeJS.Signals): Promise<void> => {
    const gone = once(holder, 'exit')
    holder.kill(signal)
    await gone
  }
  await answeredBy('agent')
  for (const [word, family] of [
    ['ip', 4],
    ['ip6', 6],
  ] as const) {
    const listed = nft('list', 'table', word, 'fulmar-dns')
    t.match(listed, 'flags owner')
    const key = (side: string, port: string) => `${word} ${side} . meta l4proto . th ${port}`
    const chains: Readonly<Record<string, readonly string[]>> = {
      'zone-prerouting': [`th dport 53 ${key('daddr', 'dport')} @apart ct zone set 7078`],
      'zone-output': [
        `th dport 53 ${key('daddr', 'dport')} @apart ct zone set 7078`,
        `th sport 53 ${key('saddr', 'sport')} @apart ct zone set 7078`,
      ],
      'nat-prerouting': [`dnat ${word} to ${key('daddr', 'dport')} map @takeover`],
      'nat-output': [`dnat ${word} to ${key('daddr', 'dport')} map @takeover`],
    }
    for (const [chain, rules] of Object.entries(chains)) {
      const [, head, body] = new RegExp(`chain ${chain} \\{\\n\\t\\t(.*)\\n([^}]*)\\}`).exec(listed)!
      t.match(
        head,
        chain.startsWith('zone-')
          ? /^type filter hook \w+ priority raw;/
          : /^type nat hook \w+ priority (dstnat - 2|-102);/,
      )
      t.strictSame(
        body!
          .trim()
          .split('\n')
          .map((line) => line.trim()),
        rules,
        `${chain} over IPv${family}`,
      )
    }
  }

  t.test('killed, and back later: who keeps a socket is answered by the cluster DNS meanwhile', async (t) => {
    const life = new AbortController()
    const heard = clients.map((): string[] => [])
    const asking = clients.map(async (client, i) => {
      for await (const { answer } of askEach(...client, ASKED_MAX)) {
        if (life.signal.aborted) return
        heard[i]!.push(asWhom(answer))
      }
    })
    const allHear = (by: string) =>
      until(`all are answered by the ${by}`, PATIENCE_MS, async () => heard.every((own) => own.at(-1) === by))
    await allHear('agent')
    await end('SIGKILL')
    await allHear('cluster')
    holder = await hold()
    await allHear('agent')
    life.abort()
    await Promise.all(asking)
    for (const own of heard)
      t.strictSame(
        own.filter((by, i) => by !== own[i - 1]),
        ['agent', 'cluster', 'agent'],
      )
  })

  t.test('what others flush leaves it alone, and they cannot change it', async (t) => {
    nft('flush', 'ruleset')
    await answeredBy('agent')
    t.throws(() => execFileSync('nft', ['delete', 'table', 'ip', 'fulmar-dns'], { stdio: 'ignore' }))
    serve()
  })

  t.test('a second holder waits for the end of the first', async () => {
    const second = hold()
    await end('SIGTERM')
    holder = await second
    await answeredBy('agent')
  })

  t.test('hung: its elements lapse, until it goes on', async () => {
    holder.kill('SIGSTOP')
    await answeredBy('cluster')
    holder.kill('SIGCONT')
    await answeredBy('agent')
  })

  t.test('handed back at the end', async (t) => {
    await end('SIGTERM')
    t.notMatch(nft('list', 'tables'), 'fulmar-dns')
    await answeredBy('cluster')
  })
}
