// A lab's daemons from the rendered chart instead of from daemons.ts: what its DaemonSets say, placed on the nodes by
// their labels and names. What of Kubernetes the lab does not have, and a chart may say, is refused by name.

import { parseAllDocuments } from 'yaml'
import type { KubernetesObject } from '../../lib/k8s/objects.ts'
import { UsageError } from '../../lib/net/lifetime.ts'
import { containerCommand, type PodSpec } from './container.ts'
import { DAEMONS, STUN_PORTS, type Daemon, type DaemonName } from './daemons.ts'
import { cgroupOf, CLOUD, pathsOf } from './names.ts'
import type { Topology } from './topology.ts'

export type ChartDaemons = {
  readonly relays: readonly Daemon[]
  readonly agents: readonly Daemon[]
  /** Processes that must be there before gateways. */
  readonly tunnels: readonly Daemon[]
  readonly gateways: readonly Daemon[]
}
/** By name, the labels that a scheduler goes by. */
export type Labels = ReadonlyMap<string, Readonly<Record<string, string>>>

const OBJECTS = '/etc/fulmar/objects'

/** What a person would write to install on this lab. @param cgroups where its hosts have cgroup2. */
export function valuesOf(
  { id, relay }: Topology,
  {
    manifests,
    cgroups,
    agentFlags,
    gatewayFlags,
  }: {
    readonly manifests: string
    readonly cgroups: string
    readonly agentFlags: readonly string[]
    readonly gatewayFlags: readonly string[]
  },
): object {
  return {
    agent: { args: ['--cgroup', `${cgroups}/${cgroupOf(id)}/$(NODE_NAME)`, ...agentFlags] },
    gateway: { args: gatewayFlags },
    wireguardGo: { enabled: true },
    relay: {
      replicas: [{ node: CLOUD, public: relay.addresses, stun: relay.stun }],
      args: ['--stun-ports', STUN_PORTS.join(','), '--manifests', OBJECTS],
      extraVolumes: [{ name: 'objects', hostPath: { path: manifests, type: 'Directory' } }],
      extraVolumeMounts: [{ name: 'objects', mountPath: OBJECTS, readOnly: true }],
    },
  }
}

/** As a kubelet labels its node; whoever installs labels those that may be gateways. */
export function labelsOf({ nodes, pools }: Topology): Labels {
  const gateways = new Set(pools.flatMap((pool) => pool.gateways))
  return new Map(
    [...new Set([CLOUD, ...nodes.map(({ name }) => name)])].map((name) => [
      name,
      {
        'kubernetes.io/os': 'linux',
        'kubernetes.io/hostname': name,
        ...(gateways.has(name) && { 'fulmar.dev/gateway': 'true' }),
      },
    ]),
  )
}

type Workload = KubernetesObject & {
  readonly spec?: { readonly template?: { readonly spec?: PodSpec } }
}

/** @param rendered what `helm template` prints. @param nodes that run agents; the cloud's machine may be none. */
export function daemonsOf(
  rendered: string,
  topology: Topology,
  { labels, image }: { readonly labels: Labels; readonly image: string },
): ChartDaemons {
  const documents = parseAllDocuments(rendered)
  const workloads = (Array.isArray(documents) ? documents : []).flatMap((document): readonly Workload[] => {
    const object = document.toJS() as Workload | null
    return object?.kind === 'DaemonSet' ? [object] : []
  })
  const isNode = new Set(topology.nodes.map(({ name }) => name))
  const daemons = workloads.flatMap(({ metadata, spec }) => {
    const pod = spec?.template?.spec
    const name = metadata?.name ?? ''
    if (pod === undefined) throw new UsageError(`DaemonSet ${name}: has no pod`)
    const named = namesIn(name, pod)
    const hosts = [...labels].flatMap(([host, known]) => {
      const fits = Object.entries(pod.nodeSelector ?? {}).every(([key, value]) => known[key] === value)
      return fits && (named?.includes(host) ?? isNode.has(host)) ? [host] : []
    })
    if (named !== undefined && hosts.length !== named.length)
      throw new UsageError(`DaemonSet ${name}: is for ${named.join(' and ')}, and the lab has ${hosts.join(' and ')}`)
    return hosts.flatMap((host) =>
      pod.containers.map((container) => ofContainer(topology, host, name, pod, container.name, image)),
    )
  })
  const named = (...names: readonly DaemonName[]) => daemons.filter(({ daemon }) => names.includes(daemon))
  return {
    relays: named('relay'),
    agents: named('agent'),
    tunnels: named('fm-direct', 'fm-udp', 'fm-tcp'),
    gateways: named('gateway'),
  }
}

/** The nodes that a pod is for by their names; undefined where it is for any. */
function namesIn(workload: string, { affinity }: PodSpec): readonly string[] | undefined {
  if (affinity === undefined) return undefined
  const terms = affinity.nodeAffinity?.requiredDuringSchedulingIgnoredDuringExecution?.nodeSelectorTerms ?? []
  return terms.flatMap(({ matchFields = [], ...others }) => {
    const [field, ...more] = matchFields
    if (field?.key !== 'metadata.name' || field.operator !== 'In' || more.length + Object.keys(others).length > 0)
      throw new UsageError(`DaemonSet ${workload}: a lab’s scheduler knows no affinity but to nodes by name`)
    return field.values
  })
}

function ofContainer(
  { id }: Topology,
  host: string,
  workload: string,
  pod: PodSpec,
  name: string,
  image: string,
): Daemon {
  const daemon = DAEMONS.find((known) => known === name)
  if (daemon === undefined) throw new UsageError(`${workload}: the lab knows no container ${name}`)
  const scratch = `${pathsOf(id).host(host)}/pods/${workload}`
  const command = containerCommand({ pod, node: host, image, scratch }, name)
  return { host, daemon, namespaces: host, cgroup: `${cgroupOf(id)}/${host}`, command }
}
