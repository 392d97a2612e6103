// The pods that each node of a lab has, with their containers: where the topology placed them and what their objects say.

import { watch } from 'node:fs'
import { open } from 'node:fs/promises'
import type { KubernetesObject, Pod } from '../../../lib/k8s/objects.ts'
import { aborted } from '../../../lib/net/lifetime.ts'
import { enterCommand, hostEnvironment, placeOf } from '../enter.ts'
import { readFolder } from '../folder.ts'
import { pathsOf } from '../names.ts'
import type { LabState } from '../state.ts'
import type { LabEvent } from '../supervisor.ts'
import type { PlacedPod } from '../topology.ts'
import { Container, type ContainerSpec, type Sandbox } from './container.ts'
import { connectIn } from './netns-socket.ts'
import { startProcess } from './process.ts'

export type KubeletPod = {
  readonly namespace: string
  readonly name: string
  readonly sandbox: Sandbox
  readonly object: KubernetesObject
  readonly containers: readonly Container[]
}

export type LabPod = KubeletPod & {
  readonly placed: PlacedPod
  /** Relative to the root of cgroup2. */
  readonly cgroup: string
}

/** What a container's object may say beside what our own types know. */
type Spec = {
  readonly name?: string
  readonly command?: readonly string[]
  readonly args?: readonly string[]
  readonly env?: readonly { readonly name?: string; readonly value?: string }[]
  readonly stdin?: boolean
  readonly tty?: boolean
}

export function podsOfLab({ topology, manifests }: LabState): readonly LabPod[] {
  const { id } = topology
  const objects = readFolder(manifests).pods
  return topology.pods.flatMap((placed) => {
    const object = objects.find((pod) => isPod(pod, placed))
    if (object === undefined) return []
    const place = placeOf(topology, placed.host)
    const sandbox: Sandbox = {
      start: (options) =>
        startProcess(enterCommand(id, place, options.command), {
          ...options,
          env: { ...hostEnvironment(id), ...options.env },
        }),
      connect: (port, signal) => connectIn(pathsOf(id).networkNamespace(place.namespaces), port, signal),
    }
    const specs = ((object.spec?.containers ?? []) as readonly Spec[]).map(specOf)
    const containers = specs.map(
      (spec) => new Container(sandbox, spec, `${pathsOf(id).host(placed.host)}/containers/${spec.name}`),
    )
    const { name, namespace } = placed
    return [{ name, namespace, sandbox, object, containers, placed, cgroup: place.cgroup }]
  })
}

const isPod = ({ metadata }: Pod, { name, namespace }: PlacedPod) =>
  metadata?.name === name && (metadata.namespace ?? 'default') === namespace

const specOf = ({ name = '', command, args = [], env = [], stdin = false, tty = false }: Spec): ContainerSpec => ({
  name,
  command: command === undefined ? undefined : [...command, ...args],
  env: Object.fromEntries(env.map((variable) => [variable.name ?? '', variable.value ?? ''])),
  stdin,
  tty,
})

/** Starts what has a command, and follows the servers, until the signal aborts. */
export async function runPods(id: string, pods: readonly LabPod[], signal: AbortSignal): Promise<void> {
  const servers = new Map<string, Container>()
  const running: Promise<void>[] = []
  for (const { placed, containers } of pods)
    for (const container of containers) {
      const { command } = container.spec
      if (command !== undefined) running.push(container.run(command, signal))
      else if (!servers.has(placed.host)) {
        servers.set(placed.host, container)
        container.follow(pathsOf(id).logOf(placed.host, 'pod'), signal)
      }
    }
  await followEvents(
    pathsOf(id).events,
    ({ kind, host, daemon }) => {
      const container = daemon === 'pod' ? servers.get(host) : undefined
      if (kind === 'died') container?.serverEnded(pathsOf(id).logOf(host, 'pod'))
      else if (kind === 'started') container?.serverStarted()
    },
    signal,
  )
  await Promise.all(running)
}

/** Of what happens from now on. */
async function followEvents(file: string, onEvent: (event: LabEvent) => void, signal: AbortSignal): Promise<void> {
  const handle = await open(file, 'a+')
  let at = (await handle.stat()).size
  let text = ''
  let reading = Promise.resolve()
  const read = async (): Promise<void> => {
    for (;;) {
      const { bytesRead, buffer } = await handle.read(Buffer.alloc(65_536), 0, 65_536, at)
      if (bytesRead === 0) return
      at += bytesRead
      const lines = (text + buffer.toString('utf8', 0, bytesRead)).split('\n')
      text = lines.pop()!
      for (const line of lines) onEvent(JSON.parse(line) as LabEvent)
    }
  }
  const watcher = watch(file, { persistent: false }, () => void (reading = reading.then(read)))
  await aborted(signal)
  watcher.close()
  await reading
  await handle.close()
}
