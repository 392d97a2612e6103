// What a kubelet writes for the pods of a node: the files of Secrets and ConfigMaps, and the tokens of ServiceAccounts, which
// it asks the API for and asks again before they end.

import { mkdirSync, readdirSync, renameSync, rmSync, symlinkSync, writeFileSync } from 'node:fs'
import { dirname, join } from 'node:path'
import type { PodSpec, VolumeSpec } from './container.ts'
import { execAt, placeOf } from './enter.ts'
import { objectsIn } from './helm.ts'
import type { Topology } from './topology.ts'

type Files = Readonly<Record<string, string>>
/** By name. */
export type VolumeSources = {
  readonly secrets: Readonly<Record<string, Files>>
  readonly configMaps: Readonly<Record<string, Files>>
}
export type Kubelet = {
  readonly node: string
  /** Where it keeps who it is. */
  readonly stateDir: string
  readonly namespace: string
  readonly sources: VolumeSources
}
type Pod = { readonly name: string; readonly scratch: string; readonly spec: PodSpec }

/** What kubelet-tokens.ts is asked for, and what it answers. */
export type TokenWish = {
  readonly namespace: string
  readonly account: string
  readonly pod: string
  readonly audience: string | undefined
  readonly expirationSeconds: number
}
export type Token = { readonly token: string; readonly expirationTimestamp: string }

/** Kubelets renew a token after so much of its life, and after a day at the latest. */
const RENEW_AFTER = 0.8
const DAY_MS = 86_400_000
const LIFE_S = 3_600

/** Files of the ConfigMaps among objects as YAML. */
export const configMapsIn = (rendered: string): VolumeSources['configMaps'] =>
  Object.fromEntries(
    objectsIn(rendered).flatMap(({ kind, metadata, data }) =>
      kind === 'ConfigMap' ? [[metadata.name, (data ?? {}) as Files] as const] : [],
    ),
  )

/** @returns when the first of them has to be renewed, in ms. @throws Error where the API gives no token. */
export async function writeVolumes(topology: Topology, kubelet: Kubelet, pods: readonly Pod[]): Promise<number> {
  const volumes = pods.flatMap((pod) => (pod.spec.volumes ?? []).map((volume) => ({ pod, volume })))
  const wishes = volumes.map(({ pod, volume }) => wishesOf(kubelet.namespace, pod, volume))
  const tokens = await askFor(topology, kubelet, wishes.flat())
  const waiting = [...tokens]
  for (const [index, { pod, volume }] of volumes.entries()) {
    const own = waiting.splice(0, wishes[index]!.length)
    const files = filesOf(volume, kubelet.sources, own)
    if (files !== undefined) replaceFiles(join(pod.scratch, volume.name), files)
  }
  const now = Date.now()
  const lives = tokens.map(({ expirationTimestamp }) => (Date.parse(expirationTimestamp) - now) * RENEW_AFTER)
  return Math.min(DAY_MS, ...lives)
}

const wishesOf = (namespace: string, { name: pod, spec }: Pod, { projected }: VolumeSpec): readonly TokenWish[] =>
  (projected?.sources ?? []).flatMap(({ serviceAccountToken: wish }) =>
    wish === undefined
      ? []
      : [
          {
            ...{ namespace, pod, account: spec.serviceAccountName ?? 'default', audience: wish.audience },
            expirationSeconds: wish.expirationSeconds ?? LIFE_S,
          },
        ],
  )

/** @returns undefined for a volume that is none of a kubelet's. */
function filesOf({ name, projected, secret }: VolumeSpec, sources: VolumeSources, tokens: readonly Token[]) {
  if (secret !== undefined) return need(name, sources.secrets[secret.secretName], secret.secretName)
  if (projected === undefined) return undefined
  const waiting = [...tokens]
  return Object.fromEntries(
    projected.sources.flatMap(({ serviceAccountToken, configMap }) => {
      if (serviceAccountToken !== undefined) return [[serviceAccountToken.path, waiting.shift()!.token] as const]
      if (configMap === undefined) throw new Error(`volume ${name}: only tokens and ConfigMaps are projected here`)
      const data = need(name, sources.configMaps[configMap.name], configMap.name)
      return (configMap.items ?? []).map(({ key, path }) => [path, need(name, data[key], key)] as const)
    }),
  )
}

function need<T>(volume: string, value: T | undefined, what: string): T {
  if (value === undefined) throw new Error(`volume ${volume}: there is no ${what}`)
  return value
}

/** In the node's own network, so that a site without the cloud gets none. */
async function askFor(topology: Topology, kubelet: Kubelet, wishes: readonly TokenWish[]): Promise<readonly Token[]> {
  if (wishes.length === 0) return []
  const { node, stateDir } = kubelet
  const command = [process.execPath, `${import.meta.dirname}/kubelet-tokens.ts`, JSON.stringify({ stateDir, wishes })]
  const { code, stdout, stderr } = await execAt(topology.id, placeOf(topology, node), command)
  if (code !== 0) throw new Error(`the kubelet of ${node} got no tokens: ${stderr.trim()}`)
  return JSON.parse(stdout) as readonly Token[]
}

/** All of them at once, as kubelets do: files are links through one that is moved. */
function replaceFiles(folder: string, files: Files): void {
  mkdirSync(folder, { recursive: true })
  const before = readdirSync(folder).filter((name) => name.startsWith('..2'))
  const draft = `..${new Date().toISOString().replaceAll(/[:.]/g, '_')}`
  mkdirSync(join(folder, draft))
  for (const [path, text] of Object.entries(files)) {
    mkdirSync(join(folder, draft, dirname(path)), { recursive: true })
    writeFileSync(join(folder, draft, path), text, { mode: 0o400 })
  }
  symlinkSync(draft, join(folder, '..data_tmp'))
  renameSync(join(folder, '..data_tmp'), join(folder, '..data'))
  for (const path of Object.keys(files))
    if (!readdirSync(folder).includes(path)) symlinkSync(join('..data', path), join(folder, path))
  for (const name of before) rmSync(join(folder, name), { recursive: true })
}
