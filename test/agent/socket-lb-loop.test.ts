// The socket load balancer with real programs, in a group and a network of its own. There is no nft and no route: what
// the programs leave alone does not arrive. `agent` as argument makes this file an agent that is killed.

import { createSocket } from 'node:dgram'
import { spawn, type ChildProcess } from 'node:child_process'
import { once } from 'node:events'
import { existsSync } from 'node:fs'
import { connect } from 'node:net'
import { createInterface } from 'node:readline'
import { setTimeout as sleep } from 'node:timers/promises'
import { fileURLToPath } from 'node:url'
import t from 'tap'
import { byService, type Frontend, type ServiceFrontends, type Target } from '../../agent/balance.ts'
import { Ledger } from '../../agent/socket-lb-ledger.ts'
import { Generation, keptMaps, Links } from '../../agent/socket-lb-generation-loop.ts'
import { runSocketLb, type SocketLb, type SocketLbOptions } from '../../agent/socket-lb-loop.ts'
import { detachLink } from '../../lib/bpf/program.ts'
import { openPin, removePins } from '../../lib/bpf/pins.ts'
import { createLog } from '../../lib/log.ts'
import { EMPTY, sortedList } from '../../lib/sorted-list.ts'
import { isRoot, until } from '../lib/netns.ts'
import { addCagePod, inGroup, startTargets } from './cage-pods.ts'
import { addGroup, enterCage } from './cage.ts'
import { call, callBy } from './peer.ts'

const THIS = fileURLToPath(import.meta.url)
const UNTOUCHED = 'ENETUNREACH'
const cage = isRoot ? enterCage('fmb-', import.meta.url) : undefined
if (!isRoot) t.test('needs root', { skip: true }, () => {})

const target = (last: number, family: 4 | 6 = 4, weight = 1): Target => ({
  address: family === 4 ? `10.244.1.${last}` : `fd00:244:1::${last}`,
  port: 8080,
  node: 'h1',
  weight,
})
const frontend = (name: string, last: number, more: Partial<Frontend>): Frontend => ({
  service: `shop/${name}`,
  portName: 'http',
  family: 4,
  protocol: 'TCP',
  kind: 'cluster-ip',
  address: more.family === 6 ? `fd00:96::${last}` : `10.96.0.${last}`,
  port: 80,
  targets: [target(2)],
  whenEmpty: 'reject',
  keepsSource: false,
  ...more,
})
const serviceOf = (...frontends: readonly Frontend[]): ServiceFrontends => ({
  service: frontends[0]!.service,
  frontends,
})
const sorted = (services: readonly ServiceFrontends[]) => sortedList(services, byService)
const optionsOf = (group: string, more: Partial<SocketLbOptions>): SocketLbOptions => ({
  mode: 'bpf',
  group,
  folder: '/sys/fs/bpf/fulmar',
  services: () => EMPTY,
  nodeAddresses: () => [],
  except: () => [],
  excludedGroups: () => [],
  log: createLog('test', process.env['LOG'] ?? 'silent'),
  ...more,
})

if (cage !== undefined && process.argv[2] === 'agent') {
  const services = [serviceOf(frontend('kept', 1, { address: '10.97.0.1', targets: [target(4)] }))]
  const options = optionsOf(`${cage.group}/other`, { folder: '/sys/fs/bpf/killed', services: () => sorted(services) })
  const loop = runSocketLb(options, new AbortController().signal)
  await loop.idle()
  process.stdout.write(`${loop.path().kind}\n`)
} else if (cage !== undefined) {
  await startTargets(t)
  const calls = (by: readonly string[], address: string, port: number, count: number): Promise<string[]> =>
    callBy(by, 'tcp', address, port, count)
  const distinct = (answers: readonly string[]) => [...new Set(answers)].sort()
  const pods = [await addCagePod(t, 'pod-a', '10.244.9.1'), await addCagePod(t, 'pod-b', '10.244.9.2')] as const
  const other = addGroup(cage, 'other')

  const pair = (a: number, b: number) => serviceOf(frontend('pair', 2, { targets: [target(a), target(b)] }))
  const fixed = [
    serviceOf(frontend('one', 1, {}), frontend('one', 1, { family: 6, targets: [target(2, 6)] })),
    serviceOf(frontend('none', 3, { targets: [] }), frontend('none', 3, { family: 6, targets: [] })),
    serviceOf(frontend('silent', 4, { targets: [], whenEmpty: 'drop' })),
    serviceOf(frontend('heavy', 5, { targets: [target(2, 4, 3), target(3, 4, 1)] })),
    serviceOf(frontend('door', 6, { kind: 'node-port', address: undefined, port: 30080 })),
    serviceOf(frontend('led-away', 7, {})),
    serviceOf(
      ...[8, 9].map((last) =>
        frontend('sticky', last, { targets: [2, 3, 4, 5].map((i) => target(i)), affinitySeconds: 1 }),
      ),
    ),
  ]
  let changing = pair(2, 3)
  let excluded: readonly string[] = []
  const options = optionsOf(cage.group, {
    services: () => sorted([...fixed, changing]),
    nodeAddresses: () => ['192.168.7.1'],
    except: () => ['10.96.0.7'],
    excludedGroups: () => excluded,
  })
  let controller = new AbortController()
  let loop: SocketLb = runSocketLb(options, controller.signal)
  t.teardown(() => controller.abort())

  t.test('calls arrive, and see the address that they called', async (t) => {
    await loop.idle()
    t.same(loop.path(), { kind: 'bpf', reason: '' })
    t.same(loop.problems(), [])
    t.equal(await call('tcp', '10.96.0.1', 80), '10.244.1.2')
    t.equal(await call('tcp', '::ffff:10.96.0.1', 80), '10.244.1.2', 'IPv4-mapped')
    t.equal(await call('tcp', 'fd00:96::1', 80), 'fd00:244:1::2')
    t.same(await calls(pods[0], '10.96.0.1', 80, 1), ['10.244.1.2'], 'from a pod')
    for (const address of ['10.96.0.1', '::ffff:10.96.0.1', 'fd00:96::1']) {
      const socket = connect(80, address)
      await once(socket, 'connect')
      t.equal(socket.remoteAddress, address)
      t.equal(socket.remotePort, 80)
      socket.destroy()
    }
    const direct = connect(8080, '10.244.1.2')
    await once(direct, 'connect')
    t.equal(direct.remoteAddress, '10.244.1.2', 'who calls the target sees the target')
    direct.destroy()
  })

  t.test('what is left alone', async (t) => {
    for (const [address, port] of [
      ['10.96.0.1', 81],
      ['10.96.0.4', 80],
      ['10.96.0.7', 80],
      ['10.96.0.200', 80],
    ] as const)
      t.equal(await call('tcp', address, port), UNTOUCHED, `${address}:${port}`)
    const udp = createSocket('udp4')
    t.teardown(() => udp.close())
    const error = await new Promise<unknown>((resolve) => udp.once('error', resolve).connect(80, '10.96.0.1'))
    t.match(error, { code: UNTOUCHED }, 'UDP')
  })

  t.test('no target: refused at once', async (t) => {
    for (const address of ['10.96.0.3', '::ffff:10.96.0.3', 'fd00:96::3'])
      t.equal(await call('tcp', address, 80), 'ECONNREFUSED', address)
  })

  t.test('NodePorts: at the node’s addresses for all, at its loopback for itself', async (t) => {
    t.equal(await call('tcp', '192.168.7.1', 30080), '10.244.1.2')
    t.equal(await call('tcp', '127.0.0.1', 30080), '10.244.1.2')
    t.equal(await call('tcp', '::ffff:127.0.0.1', 30080), '10.244.1.2')
    t.same(await calls(pods[0], '192.168.7.1', 30080, 1), ['10.244.1.2'])
    t.same(await calls(pods[0], '127.0.0.1', 30080, 1), ['ECONNREFUSED'], 'a pod’s loopback is its own')
  })

  t.test('weights', async (t) => {
    const answers = await calls([], '10.96.0.5', 80, 400)
    const first = answers.filter((answer) => answer === '10.244.1.2').length
    t.same(distinct(answers), ['10.244.1.2', '10.244.1.3'])
    // 300 of 400, give or take five standard deviations.
    t.ok(Math.abs(first - 300) < 45, `${first} of 400 to the one of weight 3 beside 1`)
  })

  t.test('affinity: by network namespace, over all addresses of a service, refreshed by use', async (t) => {
    const first = (await calls(pods[0], '10.96.0.8', 80, 20)).concat(await calls(pods[0], '10.96.0.9', 80, 20))
    t.equal(distinct(first).length, 1)
    // By chance all of them may have the same target: once in 4^7 times.
    const others = new Set<string>()
    for (let i = 0; i < 8 && others.size < 2; i++) {
      for (const answer of distinct(await calls(pods[1], '10.96.0.9', 80, 3))) others.add(answer)
      await sleep(1_100)
    }
    t.equal(others.size, 2, 'after the time it is forgotten')
  })

  t.test('a change under fire: nobody fails, and the new set is all there is', async (t) => {
    const answers = calls([], '10.96.0.2', 80, 1_500)
    let over = false
    void answers.finally(() => (over = true))
    let changes = 0
    while (!over) {
      changing = changes++ % 2 === 0 ? pair(4, 5) : pair(2, 3)
      loop.trigger()
      await loop.idle()
      await sleep(1)
    }
    t.same(distinct(await answers), ['10.244.1.2', '10.244.1.3', '10.244.1.4', '10.244.1.5'], `${changes} changes`)
    changing = pair(4, 5)
    loop.trigger()
    await loop.idle()
    t.same(distinct(await calls([], '10.96.0.2', 80, 60)), ['10.244.1.4', '10.244.1.5'])
  })

  t.test('groups that are left to nft', async (t) => {
    t.same(await calls(inGroup(other), '10.96.0.1', 80, 1), ['10.244.1.2'])
    excluded = [other]
    await until('left alone', 3_000, async () => (await calls(inGroup(other), '10.96.0.1', 80, 1))[0] === UNTOUCHED)
    t.equal(await call('tcp', '10.96.0.1', 80), '10.244.1.2', 'others are served')
    excluded = ['/nowhere']
    await until('served again', 3_000, async () => (await calls(inGroup(other), '10.96.0.1', 80, 1))[0] !== UNTOUCHED)
  })

  t.test('links that somebody detached, and pins that went, are back', async (t) => {
    const link = openPin(`${options.folder}/connect4`)!
    detachLink(link)
    t.equal(await call('tcp', '10.96.0.1', 80), UNTOUCHED)
    const ms = await until('attached again', 3_000, async () => (await call('tcp', '10.96.0.1', 80)) !== UNTOUCHED)
    t.comment(`after ${Math.round(ms)} ms`)
    removePins(options.folder)
    await until('attached again', 3_000, async () => (await call('tcp', '10.96.0.1', 80)) !== UNTOUCHED)
    await until('pinned again', 3_000, async () => existsSync(`${options.folder}/getpeername6`))
    await loop.idle()
    t.equal(loop.path().kind, 'bpf')
  })

  t.test('a killed agent is not missed, and the next one takes over without a gap', async (t) => {
    // In a group below: programs of the same group would see the other agent's canary.
    const [program, ...words] = [...inGroup(other), process.execPath, THIS, 'agent'] as const
    const start = async (): Promise<ChildProcess> => {
      const child = spawn(program!, words, { stdio: ['ignore', 'pipe', 'inherit'] })
      const [line] = (await once(createInterface(child.stdout), 'line')) as [string]
      t.equal(line, 'bpf')
      return child
    }
    const called = (count: number) => calls(inGroup(other), '10.97.0.1', 80, count)
    let agent = await start()
    let over = false
    const answers = called(3_000).finally(() => (over = true))
    let kills = 0
    while (!over || kills < 3) {
      const ended = once(agent, 'exit')
      agent.kill('SIGKILL')
      await ended
      t.same(await called(1), ['10.244.1.4'], 'by nobody')
      agent = await start()
      kills++
    }
    t.same(distinct(await answers), ['10.244.1.4'], `3000 calls under ${kills} kills and starts`)
    agent.kill('SIGKILL')
    await once(agent, 'exit')
    removePins('/sys/fs/bpf/killed')
    t.same(await called(1), [UNTOUCHED])
  })

  t.test('without a lease the programs step aside; getpeername stays', async (t) => {
    const place = { family: 4, address: '10.98.0.1', port: 80 } as const
    const capacity = { frontends: 16, slots: 16, members: 16 }
    const ledger = new Ledger(capacity, [{ service: '', place, flags: 0, targets: [target(3)] }])
    const kept = keptMaps(undefined)
    const generation = new Generation(capacity, kept, { refuse: true })
    generation.apply(ledger.plan(EMPTY, () => [], 0)!)
    const links = new Links(cage.group, undefined)
    links.attach(generation.programs)
    t.equal(await call('tcp', '10.98.0.1', 80), UNTOUCHED, 'not yet')
    generation.lease(process.hrtime.bigint() + 300_000_000n, 0n)
    t.equal(await call('tcp', '10.98.0.1', 80), '10.244.1.3')
    const socket = connect(80, '10.98.0.1')
    await once(socket, 'connect')
    const ms = await until('stale', 2_000, async () => (await call('tcp', '10.98.0.1', 80)) === UNTOUCHED)
    t.ok(ms < 1_000)
    t.equal(socket.remoteAddress, '10.98.0.1')
    socket.destroy()
    links.detach()
    generation.close()
    kept.forEach((map) => map.close())
  })

  t.test('more services than there is room for: a greater generation', async (t) => {
    const many = Array.from({ length: 700 }, (_, i) =>
      serviceOf(frontend(`many-${i}`, 1, { address: `10.99.${i >> 8}.${i & 255}` })),
    )
    const before = fixed.length
    fixed.push(...many)
    const answers = calls([], '10.96.0.1', 80, 500)
    loop.trigger()
    await loop.idle()
    t.equal(await call('tcp', '10.99.2.100', 80), '10.244.1.2')
    t.same(distinct(await answers), ['10.244.1.2'])
    t.equal(loop.path().kind, 'bpf')
    fixed.length = before
    loop.trigger()
    await loop.idle()
    t.equal(await call('tcp', '10.99.2.100', 80), UNTOUCHED)
  })

  t.test('where the canary does not arrive, nft serves, and why is said', async (t) => {
    const elsewhere = new AbortController()
    // Its programs are in a group in which the agent is not.
    const blind = runSocketLb(
      optionsOf(other, { folder: '/sys/fs/bpf/blind', services: () => sorted(fixed) }),
      elsewhere.signal,
    )
    await blind.idle()
    t.match(blind.path(), { kind: 'nft', reason: /^a call to the canary 169\.254\.20\.55 / })
    t.match(blind.problems(), [/^nft serves the services and not BPF, as is wanted: a call to the canary/])
    elsewhere.abort()
    await blind.done
    removePins('/sys/fs/bpf/blind')

    const lost = new AbortController()
    const nowhere = runSocketLb(optionsOf('/nowhere', { mode: 'auto', services: () => sorted(fixed) }), lost.signal)
    await until('it is known', 3_000, async () => nowhere.path().reason !== 'it has not begun yet')
    t.same(nowhere.path(), { kind: 'nft', reason: 'there is no cgroup /nowhere' })
    t.same(nowhere.problems(), [])
    lost.abort()
  })

  t.test('told to be nft: what was attached goes', async (t) => {
    controller.abort()
    await loop.done
    t.equal(await call('tcp', '10.96.0.1', 80), '10.244.1.2', 'an agent that ends leaves it')
    controller = new AbortController()
    loop = runSocketLb({ ...options, mode: 'nft' }, controller.signal)
    t.match(loop.path(), { kind: 'nft', reason: 'it is told to be nft' })
    t.equal(await call('tcp', '10.96.0.1', 80), UNTOUCHED)
    t.notOk(existsSync(options.folder))
  })
}
