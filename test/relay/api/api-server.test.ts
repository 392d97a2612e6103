import { readFileSync, renameSync, rmSync, writeFileSync } from 'node:fs'
import { get, type IncomingMessage } from 'node:http'
import { join } from 'node:path'
import { createInterface } from 'node:readline'
import t from 'tap'
import type { WatchEvent } from '../../../lib/k8s/watch-event.ts'
import { ENDPOINT_SLICES, LEASES, NODES, PODS, SERVICES, type Lease, type Node } from '../../../lib/k8s/objects.ts'
import { nodeCaller, nodeManifest, serve, temporaryFolder, write } from './serving.ts'
import { until } from '../../lib/until.ts'

const never = new AbortController().signal
const nameOf = ({ metadata }: { metadata?: { name?: string } }) => metadata?.name ?? ''
const summary = (event: WatchEvent<Node>) =>
  event.type === 'BOOKMARK' ? event.type : `${event.type} ${nameOf(event.object)}`

/** The next events of a watch, as `TYPE name`. */
async function take(events: AsyncGenerator<WatchEvent<Node>>, count: number): Promise<readonly string[]> {
  const taken: string[] = []
  while (taken.length < count) {
    const { value, done } = await events.next()
    if (done) break
    taken.push(summary(value as WatchEvent<Node>))
  }
  return taken
}

t.test('a list, then a watch of edits from there', async (t) => {
  const directory = temporaryFolder(t)
  write(directory, { 'a.yaml': nodeManifest('a'), 'b.yaml': nodeManifest('b') })
  const { client, api } = await serve(t, directory, temporaryFolder(t))
  const nodes = client()
  const { items, resourceVersion } = await nodes.list(NODES, never)
  t.strictSame(items.map(nameOf), ['a', 'b'])
  t.match(items[0], { apiVersion: 'v1', kind: 'Node', metadata: { uid: /-/, creationTimestamp: /Z$/ } })
  const events = await nodes.watch(NODES, never, { resourceVersion })

  write(directory, { 'a.yaml': nodeManifest('a', 'changed') })
  t.strictSame(await take(events, 1), ['MODIFIED a'])
  writeFileSync(join(directory, '.new'), `${nodeManifest('b')}---\n${nodeManifest('c')}`)
  renameSync(join(directory, '.new'), join(directory, 'b.yaml'))
  t.strictSame(await take(events, 1), ['ADDED c'], 'an editor that renames; what is the same is no event')
  rmSync(join(directory, 'b.yaml'))
  t.strictSame((await take(events, 2)).toSorted(), ['DELETED b', 'DELETED c'])

  write(directory, { 'a.yaml': 'kind: [' })
  await until(() => api.status()!.problems.length === 2, 'the broken file is named')
  t.match(api.status(), {
    directory,
    objects: 1,
    problems: [/^a\.yaml:1: document 1/, /a\.yaml: 1 object is served as last known good/],
  })
  write(directory, { 'a.yaml': nodeManifest('a', 'mended') })
  t.strictSame(await take(events, 1), ['MODIFIED a'], 'no deletion in between')
  t.strictSame(api.status()?.problems, [])

  const again = await nodes.watch(NODES, never, { resourceVersion })
  t.strictSame((await take(again, 5)).slice(0, 2), ['MODIFIED a', 'ADDED c'], 'a watch from before gets all of it')
})

t.test('selectors, pages and single objects', async (t) => {
  const directory = temporaryFolder(t)
  write(directory, {
    'a.yaml': Array.from({ length: 1_201 }, (_, i) => nodeManifest(`n${i}`, i % 2 ? 'odd' : 'even')).join('---\n'),
  })
  write(directory, {
    'p.yaml': 'apiVersion: v1\nkind: Pod\nmetadata: { name: p, namespace: x }\nspec: { nodeName: n1 }\n',
  })
  const { client, url } = await serve(t, directory, temporaryFolder(t))
  const api = client()
  t.equal((await api.list(NODES, never)).items.length, 1_201, 'in three pages')
  t.equal((await api.list(NODES, never, { labelSelector: 'label=odd' })).items.length, 600)
  t.equal((await api.list(NODES, never, { fieldSelector: 'metadata.name=n7' })).items.length, 1)
  t.equal((await api.list(PODS, never, { fieldSelector: 'spec.nodeName=n1' })).items.length, 1)
  t.equal((await api.list(PODS, never, { namespace: 'y' })).items.length, 0)
  t.equal((await api.list(SERVICES, never)).items.length, 0)
  t.equal(nameOf(await api.get(PODS, { namespace: 'x', name: 'p' })), 'p')
  await t.rejects(api.get(PODS, { namespace: 'x', name: 'q' }), {
    status: 404,
    code: 'NotFound',
    message: /pods "q" not found/,
  })
  await t.rejects(api.list(NODES, never, { fieldSelector: 'spec.x=1' }), { status: 400, code: 'BadRequest' })
  await t.rejects(client({ kind: 'anonymous' }).list(NODES, never), { status: 401, code: 'Unauthorized' })

  const fetchJson = async (path: string) => (await (await fetch(`${url}/~0${path}`)).json()) as Record<string, never>
  t.match(
    await fetchJson('/api/v1/namespaces'),
    { kind: 'NamespaceList', items: { length: 5 } },
    'namespaces are implied',
  )
  t.match(await fetchJson('/apis/discovery.k8s.io/v1'), {
    resources: [{ name: ENDPOINT_SLICES.plural, namespaced: true }],
  })
  t.match(await fetchJson('/api/v1/nodes?resourceVersion=9999999999999999'), {
    code: 504,
    message: /Too large resource version/,
  })
  t.match(await fetchJson('/api/v1/nodes?limit=5&continue=x'), { code: 400 })
})

t.test('watches: bookmarks, initial events, what comes into sight and goes, and what is too old', async (t) => {
  const directory = temporaryFolder(t)
  write(directory, { 'a.yaml': nodeManifest('a', 'odd'), 'b.yaml': nodeManifest('b', 'even') })
  const { client } = await serve(t, directory, temporaryFolder(t))
  const api = client()
  const { resourceVersion } = await api.list(NODES, never)
  const short = await api.watch(NODES, never, { resourceVersion, timeoutSeconds: 1 })
  const odd = await api.watch(NODES, never, { resourceVersion: '0', labelSelector: 'label=odd' })
  t.strictSame(await take(odd, 1), ['ADDED a'])
  write(directory, { 'a.yaml': nodeManifest('a', 'even') })
  t.strictSame(await take(odd, 1), ['DELETED a'])
  write(directory, { 'b.yaml': nodeManifest('b', 'odd') })
  t.strictSame(await take(odd, 1), ['ADDED b'])
  t.strictSame(await take(short, 9), ['MODIFIED a', 'MODIFIED b', 'BOOKMARK'], 'ends in its time, with a version')

  for (const [name, version] of [
    ['before all', '5'],
    ['to come', String(Number(resourceVersion) + 1e12)],
  ] as const)
    await t.rejects(
      take(await api.watch(NODES, never, { resourceVersion: version }), 1),
      { status: 410, code: 'Expired' },
      name,
    )
})

t.test(
  'a watch of more than may wait for a slow reader is read in its time, and changes meanwhile follow',
  async (t) => {
    const directory = temporaryFolder(t)
    const COUNT = 24
    for (let i = 0; i < COUNT; i++) write(directory, { [`n${i}.yaml`]: nodeManifest(`n${i}`, 'x'.repeat(1 << 20)) })
    const { url, client } = await serve(t, directory, temporaryFolder(t))
    await client().list(NODES, never, { labelSelector: 'label=none' })
    const response = await new Promise<IncomingMessage>((resolve) => get(`${url}/~0/api/v1/nodes?watch=1`, resolve))
    await until(() => response.readableLength > 0, 'the watch begins')
    write(directory, { 'n0.yaml': nodeManifest('n0', 'changed'), 'z.yaml': nodeManifest('z') })
    await until(
      async () =>
        (await client()
          .get(NODES, { name: 'z' })
          .catch(() => undefined)) !== undefined,
      'an edit',
    )
    const seen: string[] = []
    for await (const line of createInterface({ input: response })) {
      const { type, object } = JSON.parse(line) as { type: string; object: Node }
      seen.push(`${type} ${nameOf(object)}`)
      if (seen.length === COUNT + 2) break
    }
    response.destroy()
    t.equal(seen.filter((each) => each.startsWith('ADDED n')).length, COUNT)
    t.strictSame(seen.slice(COUNT).toSorted(), ['ADDED z', 'MODIFIED n0'])
  },
)

t.test('one node does not take the watches of all', async (t) => {
  const directory = temporaryFolder(t)
  write(directory, { 'a.yaml': nodeManifest('a') })
  const { url, client } = await serve(t, directory, temporaryFolder(t))
  client(nodeCaller('a'))
  client(nodeCaller('b'))
  const watch = (who: number) =>
    new Promise<IncomingMessage>((resolve, reject) =>
      get(`${url}/~${who}/api/v1/nodes?watch=1`, { agent: false }, resolve).on('error', reject),
    )
  const open = await Promise.all(Array.from({ length: 256 }, () => watch(0)))
  t.ok(open.every(({ statusCode }) => statusCode === 200))
  t.equal((await watch(0)).statusCode, 429)
  const other = await watch(1)
  t.equal(other.statusCode, 200)
  for (const response of [...open, other]) response.destroy()
  await until(async () => (await watch(0)).statusCode === 200, 'those that end make room')
})

t.test('a relay that is killed: versions go on, what is unchanged is no event, changes meanwhile are', async (t) => {
  const directory = temporaryFolder(t)
  const stateDir = temporaryFolder(t)
  write(directory, { 'a.yaml': nodeManifest('a'), 'b.yaml': nodeManifest('b') })
  const first = await serve(t, directory, stateDir)
  const before = await first.client().list(NODES, never)
  await first
    .client(nodeCaller('a'))
    .patch(
      NODES,
      { name: 'a' },
      { status: { conditions: [{ type: 'Ready', status: 'True' }] } },
      { subresource: 'status' },
    )
  const patched = await first.client().list(NODES, never)
  await first.kill()

  const second = await serve(t, directory, stateDir)
  const after = await second.client().list(NODES, never)
  t.strictSame(after, patched, 'same versions, same uids, and the status is still there')
  const events = await second
    .client()
    .watch(NODES, never, { resourceVersion: after.resourceVersion, timeoutSeconds: 1 })
  t.strictSame(await take(events, 9), ['BOOKMARK'])
  await t.rejects(
    take(await second.client().watch(NODES, never, before), 1),
    { status: 410, code: 'Expired' },
    'history before the restart is gone',
  )
  await second.kill()

  write(directory, { 'a.yaml': 'kind: [', 'b.yaml': `${nodeManifest('b', 'changed')}---\n${nodeManifest('c')}` })
  const third = await serve(t, directory, stateDir)
  const resumed = await third.client().watch(NODES, never, { resourceVersion: after.resourceVersion })
  t.strictSame(
    (await take(resumed, 2)).toSorted(),
    ['ADDED c', 'MODIFIED b'],
    'a file that broke meanwhile is served as it was',
  )
  const written = third
    .client(nodeCaller('a'))
    .patch(NODES, { name: 'a' }, { status: { phase: 'Running' } }, { subresource: 'status' })
  t.match(await written, {
    metadata: { name: 'a', labels: { label: 'x' } },
    status: { conditions: [{ type: 'Ready' }], phase: 'Running' },
  })
  await third.kill()

  // Gone between the look at the start and the first read, as on a network file system that comes and goes.
  const blind = await serve(t, directory, stateDir, { before: () => renameSync(directory, `${directory}-away`) })
  await until(() => /ENOENT.*last known good/.test(blind.api.status()!.problems.join()), 'the folder is missed')
  t.strictSame((await blind.client().list(NODES, never)).items.map(nameOf), ['a', 'b', 'c'], 'all is served as it was')
  renameSync(`${directory}-away`, directory)
  await blind.kill()

  const elsewhere = temporaryFolder(t)
  write(elsewhere, { 'z.yaml': nodeManifest('z') })
  const fifth = await serve(t, elsewhere, stateDir)
  t.strictSame((await fifth.client().list(NODES, never)).items.map(nameOf), ['z'], 'another folder takes nothing over')
  await t.rejects(take(await fifth.client().watch(NODES, never, after), 1), { status: 410, code: 'Expired' })
})

t.test('nodes write their status and their leases, and nothing else', async (t) => {
  const directory = temporaryFolder(t)
  const file = `${nodeManifest('a')}status: { addresses: [{ type: InternalIP, address: 10.0.0.1 }] }\n`
  write(directory, { 'a.yaml': file, 'b.yaml': nodeManifest('b') })
  const { client } = await serve(t, directory, temporaryFolder(t))
  const own = client(nodeCaller('a'))
  const status = { subresource: 'status' } as const
  const ready = { status: { conditions: [{ type: 'Ready', status: 'True' }] } }
  t.match(await own.patch(NODES, { name: 'a' }, ready, status), {
    status: { ...ready.status, addresses: [{ address: '10.0.0.1' }] },
  })
  t.equal(readFileSync(join(directory, 'a.yaml'), 'utf8'), file)
  write(directory, { 'a.yaml': file.replace('10.0.0.1', '10.0.0.2') })
  const node = () => own.get(NODES, { name: 'a' })
  await until(
    async () => (await node()).status?.addresses?.[0]?.address === '10.0.0.2',
    'an edit of the file still counts',
  )
  t.match(await node(), ready)
  await t.rejects(own.patch(NODES, { name: 'b' }, ready, status), {
    status: 403,
    message: /User "system:node:a" cannot patch resource "nodes\/status"/,
  })
  await t.rejects(own.patch(NODES, { name: 'a' }, { metadata: { labels: { x: 'y' } } }), {
    status: 403,
    code: 'Forbidden',
  })
  await t.rejects(
    own.patch(NODES, { name: 'a' }, { status: { addresses: [{ type: 'InternalIP', address: 'x' }] } }, status),
    { status: 422, message: /no IP address/ },
  )
  await t.rejects(client().patch(NODES, { name: 'a' }, { metadata: {} }), { status: 405, message: /manifest folder/ })
  await t.rejects(client().patch(NODES, { name: 'ghost' }, ready, status), { status: 404, code: 'NotFound' })

  const lease: Lease = {
    metadata: { namespace: 'kube-node-lease', name: 'a' },
    spec: { holderIdentity: 'a', leaseDurationSeconds: 40 },
  }
  const created = await own.create(LEASES, lease)
  await t.rejects(own.create(LEASES, lease), { status: 409, code: 'AlreadyExists' })
  await t.rejects(client(nodeCaller('b')).update(LEASES, created), { status: 403, code: 'Forbidden' })
  const renewed = await own.update(LEASES, {
    ...created,
    spec: { ...created.spec, renewTime: '2026-01-01T00:00:00.000000Z' },
  })
  t.equal(renewed.metadata?.uid, created.metadata?.uid)
  await t.rejects(own.update(LEASES, created), { status: 409, code: 'Conflict' }, 'an older version')
  t.match(await own.patch(LEASES, { namespace: 'kube-node-lease', name: 'a' }, { spec: { holderIdentity: 'z' } }), {
    spec: { holderIdentity: 'z', leaseDurationSeconds: 40 },
  })
  await t.rejects(own.create(LEASES, { metadata: { namespace: 'shop', name: 'a' } }), {
    status: 403,
    code: 'Forbidden',
  })
  await t.rejects(
    own.create(LEASES, { metadata: { namespace: 'fulmar-system', name: 'a-x', labels: { x: 'y'.repeat(4 << 20) } } }),
    { status: 413, code: 'RequestEntityTooLarge' },
  )
})

t.test('what one node may write has an end', async (t) => {
  const directory = temporaryFolder(t)
  write(directory, { 'a.yaml': nodeManifest('a'), 'b.yaml': nodeManifest('b') })
  const { client } = await serve(t, directory, temporaryFolder(t))
  const own = client(nodeCaller('a'))
  const add = (field: string) =>
    own.patch(NODES, { name: 'a' }, { status: { [field]: 'x'.repeat(300 << 10) } }, { subresource: 'status' })
  for (const field of ['f1', 'f2', 'f3']) await add(field)
  await t.rejects(add('f4'), { status: 413, code: 'RequestEntityTooLarge' }, 'a status that grows by patches')
  t.match(Object.keys((await own.get(NODES, { name: 'a' })).status ?? {}), ['f1', 'f2', 'f3'])

  const lease = (name: string): Lease => ({ metadata: { namespace: 'kube-node-lease', name } })
  for (let i = 0; i < 64; i++) await own.create(LEASES, lease(`a-${i}`))
  await t.rejects(own.create(LEASES, lease('a')), { status: 429, code: 'TooManyRequests' })
  t.match(await client(nodeCaller('b')).create(LEASES, lease('b')), { metadata: { name: 'b' } })
  await t.rejects(client().create(LEASES, { metadata: { name: 'x' } }), { status: 405, message: /create of leases/ })
})

t.test('a folder that is not there', async (t) => {
  const stateDir = temporaryFolder(t)
  await t.rejects(serve(t, join(stateDir, 'nowhere'), stateDir), {
    code: 'FULMAR_USAGE',
    message: /--manifests .*nowhere: ENOENT.*; name a folder/,
  })
})
