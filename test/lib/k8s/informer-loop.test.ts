import t from 'tap'
import type { ApiClient } from '../../../lib/k8s/api-client.ts'
import { ApiError } from '../../../lib/k8s/api-error.ts'
import { runInformer } from '../../../lib/k8s/informer-loop.ts'
import { NODE_POOLS, SERVICES, type KubernetesObject, type Resource } from '../../../lib/k8s/objects.ts'
import { onAbort } from '../../../lib/net/lifetime.ts'

/** A server that has one version of a resource. */
function serverWith(version: string | undefined) {
  const asked: string[] = []
  const client = {
    pages: async function* (resource: Resource) {
      asked.push(resource.version)
      if (resource.version !== version) throw new ApiError('GET: not found', { status: 404, code: 'NotFound' })
      const items = [{ metadata: { name: 'north' } }]
      yield { items, resourceVersion: '7', again: () => items }
    },
    watch: (_resource: Resource, signal: AbortSignal) =>
      new Promise((_resolve, reject) => onAbort(signal, () => reject(signal.reason as Error))),
  } as unknown as ApiClient
  return { client, asked }
}

async function follow(client: ApiClient, resource: Resource) {
  const life = new AbortController()
  const { promise: items, resolve } = Promise.withResolvers<readonly KubernetesObject[]>()
  const failures: Error[] = []
  const put: KubernetesObject[] = []
  const sink = {
    listing: () => put.splice(0),
    listed: () => resolve(put),
    put: (object: KubernetesObject) => void put.push(object),
    remove: () => undefined,
    heard: () => undefined,
    failed: (error: Error) => void failures.push(error),
  }
  const done = runInformer({ client, resource }, sink, life.signal)
  const names = (await items).map(({ metadata }) => metadata?.name)
  life.abort()
  await done
  return { names, failures }
}

t.test('a resource of an older version is read as well', async (t) => {
  for (const version of ['v1beta2', 'v1beta1', 'v1alpha1']) {
    const { client, asked } = serverWith(version)
    t.same(await follow(client, NODE_POOLS), { names: ['north'], failures: [] }, version)
    t.equal(asked.at(-1), version)
  }
})

t.test('one that is not installed is empty, which is no failure', async (t) => {
  const { client, asked } = serverWith(undefined)
  t.same(await follow(client, NODE_POOLS), { names: [], failures: [] })
  t.same(asked, ['v1beta2', 'v1beta1', 'v1alpha1'], 'each version was asked for once')
})

t.test('a built-in resource has one version', async (t) => {
  const { client } = serverWith('v1')
  t.same(await follow(client, SERVICES), { names: ['north'], failures: [] })
})
