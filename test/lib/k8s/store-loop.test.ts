import { existsSync, mkdirSync, readFileSync, writeFileSync } from 'node:fs'
import { execFileSync, spawn } from 'node:child_process'
import { join } from 'node:path'
import t from 'tap'
import { createApiClient, type ApiClient } from '../../../lib/k8s/api-client.ts'
import { keptMetadata } from '../../../lib/k8s/kept.ts'
import { NODE_POOLS, NODES, SERVICES, type KubernetesObject, type Resource } from '../../../lib/k8s/objects.ts'
import { runStore, type Store } from '../../../lib/k8s/store-loop.ts'
import { log, nodeManifest, serve, temporaryFolder, write } from '../../relay/api/serving.ts'
import { until } from '../until.ts'

const RESOURCES: readonly Resource[] = [NODES, SERVICES, NODE_POOLS]
/** Nobody listens there. */
const unreachable = () => createApiClient({ server: 'http://127.0.0.1:1' })
const names = (store: Store) => store.list(NODES).map(({ metadata }) => metadata?.name)

type Test = { teardown(fn: () => unknown): unknown }
async function store(t: Test, client: ApiClient, file: string, onChange: () => void = () => undefined) {
  const life = new AbortController()
  const view = await runStore({ resources: RESOURCES, client, file, log, onChange }, life.signal)
  const stop = async () => {
    life.abort()
    await view.done
  }
  t.teardown(stop)
  return { view, stop }
}

t.test('follows the API, over its restarts, and tells of changes once', async (t) => {
  const directory = temporaryFolder(t)
  const stateDir = temporaryFolder(t)
  write(directory, { 'a.yaml': nodeManifest('a'), 'b.yaml': nodeManifest('b') })
  const first = await serve(t, directory, stateDir)
  const port = Number(new URL(first.url).port)
  let changes = 0
  const client = createApiClient({ server: `${first.url}/~0` })
  t.teardown(() => client.close())
  first.client()
  const { view } = await store(t, client, join(temporaryFolder(t), 'store.db'), () => changes++)
  t.equal(view.synced(NODES), false, 'nothing is known, which is not the same as that there is nothing')
  t.match(view.status(), { source: 'none', server: client.server, objects: { nodes: 0 } })
  await until(() => view.status().source === 'cloud', 'it is synced')
  t.strictSame(names(view), ['a', 'b'])
  t.ok([NODES, SERVICES, NODE_POOLS].every((resource) => view.synced(resource)))
  await until(() => changes > 0, 'a change is told')

  const before = { revision: view.revision, changes }
  write(directory, { 'c.yaml': Array.from({ length: 50 }, (_, i) => nodeManifest(`c${i}`)).join('---\n') })
  await until(() => view.list(NODES).length === 52, 'the edit arrives')
  await until(() => changes > before.changes, 'the change is told')
  t.equal(view.revision - before.revision, 50)
  t.ok(changes - before.changes <= 3, `50 objects are ${changes - before.changes} changes`)
  const few = ['c0', 'c11', 'c22', 'c33']
  write(directory, { 'e.yaml': nodeManifest('bb'), 'c.yaml': few.map((name) => nodeManifest(name)).join('---\n') })
  await until(() => names(view).length === 7, 'some go, one comes')
  t.strictSame(names(view), ['a', 'b', 'bb', ...few], 'in order')
  write(directory, { 'c.yaml': Array.from({ length: 50 }, (_, i) => nodeManifest(`c${i}`)).join('---\n') })
  await until(() => names(view).length === 53, 'they are back')
  t.strictSame(
    names(view),
    names(view).toSorted((a, b) => (a! < b! ? -1 : 1)),
    'in order',
  )

  await first.kill()
  await until(() => view.status().source === 'disk', 'the loss is seen')
  t.match(view.status().error, /ECONNREFUSED|ECONNRESET|connection was lost|socket hang up/)
  t.equal(view.list(NODES).length, 53, 'last known good')
  write(directory, { 'b.yaml': nodeManifest('d') })
  const revision = view.revision
  const second = await serve(t, directory, stateDir, { port })
  second.client()
  await until(() => view.status().source === 'cloud', 'it is back')
  await until(() => names(view).includes('d') && !names(view).includes('b'), 'what changed meanwhile')
  t.equal(view.revision - revision, 2, 'and nothing else')
  t.equal(view.status().error, undefined)
})

t.test('from disk alone', async (t) => {
  const directory = temporaryFolder(t)
  const file = join(temporaryFolder(t), 'new', 'store.db')
  write(directory, { 'a.yaml': nodeManifest('a'), 'b.yaml': nodeManifest('b') })
  const serving = await serve(t, directory, temporaryFolder(t))
  const online = await store(t, serving.client(), file)
  await until(() => online.view.status().source === 'cloud', 'it is synced')
  const { updatedAt } = online.view.status()
  await online.stop()

  await t.test('offline at once, and synced', async (t) => {
    const { view, stop } = await store(t, unreachable(), file)
    t.strictSame(names(view), ['a', 'b'])
    t.ok(view.synced(SERVICES), 'that there are none is known too')
    t.match(view.status(), { source: 'disk', objects: { nodes: 2 } })
    t.ok(Math.abs(view.status().updatedAt! - updatedAt!) < 1_000, 'its age is that of the last contact')
    await stop()
  })
  await t.test('what was deleted meanwhile goes with the next list', async (t) => {
    write(directory, { 'b.yaml': nodeManifest('c') })
    const { view, stop } = await store(t, serving.client(), file)
    await until(() => names(view).join() === 'a,c', 'the list replaces all')
    await stop()
    const again = await store(t, unreachable(), file)
    t.strictSame(names(again.view), ['a', 'c'])
    await again.stop()
  })
  await t.test('a corrupt file is put aside', async (t) => {
    const bytes = readFileSync(file)
    for (const [name, content] of [
      ['text', Buffer.from('no database at all, but long enough to be looked at'.repeat(50))],
      ['half', bytes.subarray(0, bytes.length / 2)],
      ['holes', Buffer.concat([bytes.subarray(0, 4096), Buffer.alloc(bytes.length - 4096, 0x5a)])],
    ] as const) {
      writeFileSync(file, content)
      const { view, stop } = await store(t, serving.client(), file)
      t.ok(existsSync(`${file}.corrupt`), name)
      await until(() => names(view).join() === 'a,c', 'it is filled again')
      await stop()
      const again = await store(t, unreachable(), file)
      t.strictSame(names(again.view), ['a', 'c'])
      await again.stop()
    }
  })
})

t.test('a reader keeps what it needs; the disk has the whole', async (t) => {
  const directory = temporaryFolder(t)
  const file = join(temporaryFolder(t), 'store.db')
  write(directory, { 'a.yaml': nodeManifest('a', 'red') })
  const serving = await serve(t, directory, temporaryFolder(t))
  const labelled: Resource<KubernetesObject & { readonly label?: string }> = NODES as Resource
  const follow = async (client: ApiClient, keep: boolean) => {
    const life = new AbortController()
    let lists = 0
    const kept = (object: KubernetesObject) => ({
      metadata: keptMetadata(object),
      label: object.metadata?.labels?.['label'],
    })
    const options = { resources: [NODES], client, file, log, onChange: () => undefined, onListed: () => lists++ }
    const view = await runStore({ ...options, ...(keep && { kept: { nodes: kept } }) }, life.signal)
    const stop = async () => {
      life.abort()
      await view.done
    }
    t.teardown(stop)
    return { view, stop, lists: () => lists }
  }
  const online = await follow(serving.client(), true)
  await until(() => online.view.synced(NODES), 'it is synced')
  const [found] = online.view.list(labelled)
  t.strictSame(Object.keys(found!), ['metadata', 'label'])
  t.equal(found!.label, 'red')
  await until(() => online.lists() === 1, 'it is read and written')
  write(directory, { 'a.yaml': nodeManifest('a', 'blue') })
  await until(() => online.view.list(labelled)[0]?.label === 'blue', 'it follows')
  await online.stop()

  const whole = await follow(unreachable(), false)
  t.match(whole.view.list(NODES), [{ kind: 'Node', metadata: { name: 'a', labels: { label: 'blue' } } }])
  await whole.stop()
  const again = await follow(unreachable(), true)
  t.match(again.view.list(labelled), [{ metadata: { name: 'a' }, label: 'blue' }])
  t.equal(again.lists(), 0)
  await again.stop()
})

t.test('kill -9 in the middle of writing leaves a file that is read', async (t) => {
  const directory = temporaryFolder(t)
  const file = join(temporaryFolder(t), 'store.db')
  write(directory, { 'a.yaml': Array.from({ length: 3_000 }, (_, i) => nodeManifest(`n${i}`)).join('---\n') })
  const serving = await serve(t, directory, temporaryFolder(t))
  serving.client()
  const child = spawn(
    process.execPath,
    [
      '--input-type=module',
      '--eval',
      `
    import { createApiClient } from ${JSON.stringify(join(import.meta.dirname, '../../../lib/k8s/api-client.ts'))}
    import { runStore } from ${JSON.stringify(join(import.meta.dirname, '../../../lib/k8s/store-loop.ts'))}
    import { NODES } from ${JSON.stringify(join(import.meta.dirname, '../../../lib/k8s/objects.ts'))}
    const log = { info() {}, warn() {}, debug() {}, error() {} }
    await runStore({ resources: [NODES], client: createApiClient({ server: '${serving.url}/~0' }), file: ${JSON.stringify(file)}, log, onChange() {} }, new AbortController().signal)
  `,
    ],
    { stdio: 'inherit' },
  )
  await until(() => existsSync(`${file}-wal`) && readFileSync(`${file}-wal`).length > 50_000, 'some is written')
  child.kill('SIGKILL')
  await new Promise((resolve) => child.once('exit', resolve))
  const { view } = await store(t, serving.client(), file)
  t.notOk(existsSync(`${file}.corrupt`))
  await until(() => view.list(NODES).length === 3_000, 'the rest is listed')
})

t.test('a disk that is full or read-only costs nothing but the copy', async (t) => {
  const mount = join(temporaryFolder(t), 'disk')
  mkdirSync(mount)
  try {
    execFileSync('mount', ['-t', 'tmpfs', '-o', 'size=512k', 'tmpfs', mount], { stdio: 'ignore' })
  } catch {
    t.pass('no file system can be mounted here')
    return
  }
  t.teardown(() => execFileSync('umount', ['-l', mount]))
  const directory = temporaryFolder(t)
  const file = join(mount, 'store.db')
  write(directory, { 'a.yaml': nodeManifest('a') })
  const serving = await serve(t, directory, temporaryFolder(t))
  const online = await store(t, serving.client(), file)
  await until(() => online.view.status().source === 'cloud', 'it is synced')
  await online.stop()

  writeFileSync(join(mount, 'ballast'), '')
  try {
    writeFileSync(join(mount, 'ballast'), Buffer.alloc(1 << 20))
  } catch {}
  write(directory, {
    'b.yaml': Array.from({ length: 500 }, (_, i) => nodeManifest(`b${i}`, 'x'.repeat(60))).join('---\n'),
  })
  const full = await store(t, serving.client(), file)
  await until(() => full.view.list(NODES).length === 501, 'it is served from memory')
  await until(() => full.view.status().diskError?.includes('store.db') === true, 'the disk is named')
  t.equal(full.view.status().source, 'cloud')
  await full.stop()

  execFileSync('mount', ['-o', 'remount,ro', mount])
  const readOnly = await store(t, unreachable(), file)
  t.ok(names(readOnly.view).includes('a'), 'what a read-only disk holds is still good')
  await readOnly.stop()
})
