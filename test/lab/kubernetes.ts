// The Kubernetes that the chart is installed on, as far as a lab needs one: an API of its own on the cloud's machine with a CA
// of its own, kubelets that joined it, the chart's objects, and a pod for each of its DaemonSets on each of their nodes.

import { randomInt } from 'node:crypto'
import { mkdirSync, readFileSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { issuerFolder, openAuthority } from '../../lib/net/authority.ts'
import { writeWhole } from '../../lib/net/files.ts'
import { containerCommand, type PodSpec } from './container.ts'
import type { Daemon, Programs } from './daemons.ts'
import { cgroupOf, CLOUD, pathsOf } from './names.ts'
import { urlOf, type Topology } from './topology.ts'
import { configMapsIn, writeVolumes, type VolumeSources } from './volumes.ts'

/** A DaemonSet's pod on a node. */
export type ChartPod = {
  readonly node: string
  readonly workload: string
  /** Where its volumes are, those of the kubelet and its own. */
  readonly scratch: string
  readonly image: string
  readonly spec: PodSpec
}
/** What whoever installs the chart has made before. */
export type Installed = {
  /** Of the API. */
  readonly server: string
  /** The CA of the mesh (PEM), and the Secret with its key. */
  readonly meshCa: string
  readonly authoritySecret: string
}

export const NAMESPACE = 'fulmar-system'
const SECRET = 'fulmar-authority'
const PORT = 6443

export class Kubernetes {
  readonly installed: Installed
  readonly #topology: Topology
  readonly #folder: string
  #sources: VolumeSources
  #pods: readonly (ChartPod & { readonly name: string })[] = []

  private constructor(topology: Topology, installed: Installed, sources: VolumeSources) {
    this.#topology = topology
    this.#folder = pathsOf(topology.id).kubernetes
    this.installed = installed
    this.#sources = sources
  }

  /** Makes both CAs. */
  static async prepare(topology: Topology): Promise<Kubernetes> {
    const folder = pathsOf(topology.id).kubernetes
    for (const name of ['run', 'objects/cluster', 'mesh']) mkdirSync(join(folder, name), { recursive: true })
    const now = Date.now()
    const [api, mesh] = await Promise.all([openAuthority(`${folder}/api`, now), openAuthority(`${folder}/mesh`, now)])
    const key = readFileSync(`${issuerFolder(`${folder}/mesh`)}/authority.pem`, 'utf8')
    const installed = {
      server: urlOf(topology.relay.addresses[0]!, PORT),
      meshCa: mesh.certificatePem,
      authoritySecret: SECRET,
    }
    const sources = {
      secrets: { [SECRET]: { 'authority.pem': key } },
      configMaps: { 'kube-root-ca.crt': { 'ca.crt': api.certificatePem } },
    }
    return new Kubernetes(topology, installed, sources)
  }

  /** @param rendered what `helm template` prints. */
  install(rendered: string, pods: readonly ChartPod[]): void {
    const namespace = `apiVersion: v1\nkind: Namespace\nmetadata: { name: ${NAMESPACE} }\n`
    writeFileSync(`${this.#folder}/objects/chart.yaml`, `${namespace}---\n${rendered}`)
    const { secrets, configMaps } = this.#sources
    this.#sources = { secrets, configMaps: { ...configMaps, ...configMapsIn(rendered) } }
    this.#pods = pods.map((pod) => ({ ...pod, name: nameOf(pod) }))
  }

  /** The process of the API, which serves the lab's own objects beside those of the chart. */
  daemon({ node, fulmar }: Programs, manifests: string): Daemon {
    const { id, relay } = this.#topology
    const folder = this.#folder
    const flags = [
      ['--listen', `0.0.0.0:${PORT},[::]:${PORT}`],
      ['--public', relay.addresses.join(',')],
      ['--udp-relay-ports', ''],
      ['--manifests', `${folder}/objects`],
      ['--state-dir', this.stateDir],
      ['--run-dir', `${folder}/run`],
      ['--metrics', '127.0.0.1:9479'],
    ]
    const mounted = 'mount -n --bind "$1" "$2"; shift 2; exec "$@"'
    const places = [manifests, `${folder}/objects/cluster`]
    return {
      host: CLOUD,
      daemon: 'kubernetes',
      namespaces: CLOUD,
      cgroup: `${cgroupOf(id)}/${CLOUD}`,
      command: [
        ...['unshare', '--mount', '--propagation=private', 'sh', '-ec', mounted, 'sh', ...places],
        ...[node, fulmar, 'relay', ...flags.flat()],
      ],
      socket: { folder: `${folder}/run`, file: 'relay.sock' },
    }
  }

  get stateDir(): string {
    return `${this.#folder}/api`
  }

  /** Where the kubelet of a node keeps who it is. */
  kubeletDir(node: string): string {
    return `${this.#folder}/kubelets/${node}`
  }

  /** Machines with pods of the chart. */
  get nodes(): readonly string[] {
    return [...new Set(this.#pods.map(({ node }) => node))]
  }

  /** As kubelets do: what pods mount is written anew. @returns when that has to be done again, in ms. */
  async renewVolumes(nodes: readonly string[] = this.nodes): Promise<number> {
    await writeWhole(`${this.#folder}/objects/pods.json`, JSON.stringify(this.#podList()))
    const renewals = await Promise.all(
      nodes.map((node) =>
        writeVolumes(
          this.#topology,
          { node, stateDir: this.kubeletDir(node), namespace: NAMESPACE, sources: this.#sources },
          this.#pods.filter((pod) => pod.node === node),
        ),
      ),
    )
    return Math.min(...renewals)
  }

  /** As a DaemonSet's controller does after `kubectl delete pod`: another one takes its place, whose tokens are others. */
  async replacePod(node: string, workload: string): Promise<void> {
    this.#pods = this.#pods.map((pod) =>
      pod.node === node && pod.workload === workload ? { ...pod, name: nameOf(pod) } : pod,
    )
    await this.renewVolumes([node])
  }

  /** Of a pod, in one of its volumes. */
  fileOf(node: string, workload: string, volume: string, file: string): string {
    return readFileSync(join(this.#podOf(node, workload).scratch, volume, file), 'utf8')
  }

  /** As `kubectl exec`: what runs these words on the pod's node, with the variables and mounts of its first container. */
  commandIn(node: string, workload: string, words: readonly string[]): readonly string[] {
    const { spec, image, scratch } = this.#podOf(node, workload)
    const name = `${spec.containers[0]!.name}-exec`
    const container = { ...spec.containers[0]!, name, command: words, args: [] }
    const pod = { ...spec, initContainers: [], containers: [container] }
    return containerCommand({ pod, node, image, scratch }, name)
  }

  #podOf(node: string, workload: string): ChartPod {
    const pod = this.#pods.find((each) => each.node === node && each.workload === workload)
    if (pod === undefined) throw new Error(`there is no pod of ${workload} on ${node}`)
    return pod
  }

  #podList(): object {
    const items = this.#pods.map(({ node, workload, name, spec }) => ({
      ...{ apiVersion: 'v1', kind: 'Pod' },
      metadata: {
        name,
        namespace: NAMESPACE,
        ownerReferences: [{ apiVersion: 'apps/v1', kind: 'DaemonSet', name: workload }],
      },
      spec: { ...spec, nodeName: node },
      status: { phase: 'Running' },
    }))
    return { apiVersion: 'v1', kind: 'List', items }
  }
}

const ALPHABET = 'bcdfghjklmnpqrstvwxz2456789'
/** As a controller draws it. */
const nameOf = ({ workload }: ChartPod): string =>
  `${workload}-${Array.from({ length: 5 }, () => ALPHABET[randomInt(ALPHABET.length)]).join('')}`
