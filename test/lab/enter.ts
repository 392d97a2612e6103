// How a program of this machine becomes a program of a host: its cgroup2 group, network and mount namespaces. By nsenter,
// since `ip netns exec` mounts /sys anew and hides cgroup2; every step replaces itself, so the child's pid is the program's.

import { spawn, type ChildProcess, type SpawnOptions } from 'node:child_process'
import { constants } from 'node:os'
import { UsageError } from '../../lib/net/lifetime.ts'
import { cgroupRoot } from './machine.ts'
import { pathsOf } from './names.ts'
import { COMPILE_CACHE } from './paths.ts'
import type { Topology } from './topology.ts'

/** Namespaces of no host. */
export const MACHINE = ''

/** Where a program runs: whose namespaces, and which group. */
export type Place = { readonly namespaces: string; readonly cgroup: string }

export type Output = { readonly code: number; readonly stdout: string; readonly stderr: string }

/** @param name a host, a hostNetwork pod, or a pod as `NODE-POD` in full. @throws UsageError naming the hosts there are. */
export function placeOf({ hosts, pods }: Topology, name: string): Place {
  const pod = pods.find((candidate) => candidate.host === name || `${candidate.node}-${candidate.name}` === name)
  const host = hosts.find(
    (candidate) => candidate.name === (pod === undefined || pod.hostNetwork ? (pod?.node ?? name) : pod.host),
  )
  if (host !== undefined)
    return { namespaces: host.name, cgroup: pod?.hostNetwork ? `${host.cgroup}/${pod.host}` : host.cgroup }
  throw new UsageError(
    `host ${name}: there is none; the hosts are ${hosts.map((candidate) => candidate.name).join(', ')}`,
  )
}

/** `fulmar` comes first in the path, and is the checkout that the lab runs from. */
export function hostEnvironment(id: string): NodeJS.ProcessEnv {
  const { PATH, HOME, TERM, LANG, USER } = process.env
  return {
    PATH: `${pathsOf(id).programs}:${PATH ?? '/usr/sbin:/usr/bin:/sbin:/bin'}`,
    HOME,
    TERM,
    LANG,
    USER,
    FULMAR_LAB: id,
    NODE_COMPILE_CACHE: COMPILE_CACHE,
  }
}

/** @returns program and arguments that run `command` at a place. */
export function enterCommand(
  id: string,
  place: Place,
  command: readonly string[],
  directory = '/',
): readonly [string, readonly string[]] {
  const paths = pathsOf(id)
  // A test runner has every Node that it starts load what it watches its tests with.
  const inside = 'unset NODE_OPTIONS; echo 0 > "$1/cgroup.procs" && cd "$2" && shift 2 && exec "$@"'
  const program = ['sh', '-c', inside, 'sh', `${cgroupRoot()}/${place.cgroup}`, directory, ...command] as const
  if (place.namespaces === MACHINE) return ['sh', program.slice(1)]
  const entry = [
    `--net=${paths.networkNamespace(place.namespaces)}`,
    `--mount=${paths.mountNamespace(place.namespaces)}`,
  ]
  return ['nsenter', [...entry, '--', ...program]]
}

/**
 * In a session of its own, as on a machine of its own: the kernel shares processors out by sessions first (autogroup), and
 * daemons that share one with the lab would get least.
 */
export function spawnApart(
  id: string,
  place: Place,
  command: readonly string[],
  options: SpawnOptions = {},
): ChildProcess {
  return spawnAt(id, place, command, { ...options, detached: true })
}

export function spawnAt(
  id: string,
  place: Place,
  command: readonly string[],
  options: SpawnOptions = {},
): ChildProcess {
  const [program, args] = enterCommand(id, place, command, typeof options.cwd === 'string' ? options.cwd : '/')
  return spawn(program, args, { ...options, cwd: '/', env: { ...hostEnvironment(id), ...options.env } })
}

const OUTPUT_MAX = 64 * 1024 * 1024

/** Runs a program to its end; its exit code is an answer, not an error. Rejects when it takes longer than `timeoutMs`. */
export function execAt(
  id: string,
  place: Place,
  command: readonly string[],
  options: {
    readonly input?: string | undefined
    readonly timeoutMs?: number | undefined
    readonly signal?: AbortSignal | undefined
  } = {},
): Promise<Output> {
  const { input, timeoutMs = 60_000, signal } = options
  const timeout = AbortSignal.timeout(timeoutMs)
  return new Promise((resolve, reject) => {
    const child = spawnAt(id, place, command, {
      stdio: [input === undefined ? 'ignore' : 'pipe', 'pipe', 'pipe'],
      signal: signal === undefined ? timeout : AbortSignal.any([signal, timeout]),
      killSignal: 'SIGKILL',
    })
    const output = { stdout: '', stderr: '' }
    for (const stream of ['stdout', 'stderr'] as const)
      child[stream]!.setEncoding('utf8').on('data', (text: string) => {
        output[stream] += text
        if (output[stream].length > OUTPUT_MAX) child.kill('SIGKILL')
      })
    child.once('error', (cause) =>
      reject(
        timeout.aborted
          ? new Error(`${command.join(' ')} on ${place.namespaces}: no end after ${timeoutMs} ms`, { cause })
          : cause,
      ),
    )
    child.once('close', (code, killedBy) =>
      resolve({ code: code ?? 128 + (killedBy === null ? 0 : signalNumber(killedBy)), ...output }),
    )
    child.stdin?.on('error', () => {}).end(input)
  })
}

/** What a shell gives as exit code of a program that a signal ended, less 128. */
export const signalNumber = (signal: NodeJS.Signals): number => constants.signals[signal]
