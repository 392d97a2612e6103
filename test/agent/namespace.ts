// Tests that change a kernel's network run in namespaces of their own: the test file is started again inside a `host`
// namespace with `pod` namespaces beside it, each with a veth to the host and its own addresses.

import { execFileSync, spawn, spawnSync } from 'node:child_process'
import { existsSync } from 'node:fs'
import { fileURLToPath } from 'node:url'

const INSIDE = 'FULMAR_TEST_NAMESPACE'

/** The prefix of this test's namespaces inside; undefined in the process that only starts the test anew. */
export function enterNamespace(prefix: string, url: string): string | undefined {
  const inside = process.env[INSIDE]
  if (inside !== undefined) return inside
  const name = `${prefix}${process.pid}`
  const host = `${name}-host`
  // What a test left that was killed.
  removeNamespaces((owner) => owner.startsWith(prefix) && !isAlive(owner.slice(prefix.length)))
  ip('netns', 'add', host)
  ip('-n', host, 'link', 'set', 'lo', 'up')
  const child = spawn('ip', ['netns', 'exec', host, process.execPath, fileURLToPath(url)], {
    stdio: 'inherit',
    env: { ...process.env, [INSIDE]: name },
  })
  for (const signal of ['SIGINT', 'SIGTERM'] as const) process.on(signal, () => child.kill(signal))
  child.on('exit', (code, signal) => {
    removeNamespaces((owner) => owner === name)
    process.exitCode = code ?? (signal === null ? 0 : 1)
  })
  return undefined
}

/** @param isOurs whether a test's namespaces go, by their prefix. */
function removeNamespaces(isOurs: (owner: string) => boolean): void {
  for (const line of ip('netns', 'list').split('\n')) {
    const [namespace = ''] = line.split(' ')
    const [owner] = /^\w+-\d+(?=-)/.exec(namespace) ?? []
    if (owner !== undefined && isOurs(owner)) spawnSync('ip', ['netns', 'del', namespace])
  }
}

const isAlive = (pid: string): boolean => existsSync(`/proc/${pid}`)

/** A namespace with one veth to the host; `addresses` are pairs of the pod's and the host's. */
export function addPod(
  test: string,
  pod: string,
  addresses: readonly (readonly [pod: string, host: string])[],
): string {
  const namespace = `${test}-${pod}`
  ip('netns', 'add', namespace)
  ip('-n', namespace, 'link', 'set', 'lo', 'up')
  ip('link', 'add', `v-${pod}`, 'type', 'veth', 'peer', 'name', 'eth0', 'netns', namespace)
  ip('link', 'set', `v-${pod}`, 'up')
  ip('-n', namespace, 'link', 'set', 'eth0', 'up')
  for (const [own, host] of addresses) {
    const [length, nodad] = own.includes(':') ? ['128', ['nodad']] : ['32', []]
    ip('-n', namespace, 'addr', 'add', `${own}/${length}`, 'dev', 'eth0', ...nodad)
    ip('addr', 'replace', `${host}/${length}`, 'dev', `v-${pod}`, ...nodad)
    ip('route', 'add', own, 'dev', `v-${pod}`)
    ip('-n', namespace, 'route', 'add', host, 'dev', 'eth0')
    ip('-n', namespace, 'route', 'add', 'default', 'via', host)
  }
  return namespace
}

export function ip(...args: readonly string[]): string {
  return execFileSync('ip', args, { encoding: 'utf8', stdio: ['ignore', 'pipe', 'pipe'] })
}
