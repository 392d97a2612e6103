// A lab's daemons from the rendered chart instead of from daemons.ts: what its DaemonSets say, placed on the nodes by
// their labels and names. What of Kubernetes the lab does not have, and a chart may say, is refused by name.

import type { KubernetesObject } from '../../lib/k8s/objects.ts'
import { UsageError } from '../../lib/net/lifetime.ts'
import { containerCommand, type PodSpec } from './container.ts'
import { DAEMONS, STUN_PORTS, type Daemon, type DaemonName } from './daemons.ts'
import { objectsIn } from './helm.ts'
import type { ChartPod, Installed } from './kubernetes.ts'
import { cgroupOf, pathsOf } from './names.ts'
import type { Topology } from './topology.ts'

export type ChartDaemons = {
  readonly relays: readonly Daemon[]
  readonly agents: readonly Daemon[]
  /** Processes that must be there before gateways. */
  readonly tunnels: readonly Daemon[]
  readonly gateways: readonly Daemon[]
  readonly pods: readonly ChartPod[]
}
/** By name, the labels that a scheduler goes by. */
export type Labels = ReadonlyMap<string, Readonly<Record<string, string>>>

/** What a person would write to install on this lab. @param cgroups where its hosts have cgroup2. */
export function valuesOf(
  { id, relays }: Topology,
  {
    installed: { server, meshCa, authoritySecret },
    cgroups,
    relayFlags,
    agentFlags,
    gatewayFlags,
  }: {
    readonly installed: Installed
    readonly cgroups: string
    readonly relayFlags: readonly string[]
    readonly agentFlags: readonly string[]
    readonly gatewayFlags: readonly string[]
  },
): object {
  return {
    api: { server },
    identity: { ca: meshCa },
    agent: { args: ['--cgroup', `${cgroups}/${cgroupOf(id)}/$(NODE_NAME)`, ...agentFlags] },
    gateway: { args: gatewayFlags },
    wireguardGo: { enabled: true },
    relay: {
      replicas: relays.map(({ host, addresses, stun }) => ({ node: host, public: addresses, stun })),
      authoritySecret,
      args: ['--stun-ports', STUN_PORTS.join(','), ...relayFlags],
    },
  }
}

/** As a kubelet labels its node; whoever installs labels those that may be gateways. */
export function labelsOf({ nodes, pools, relays }: Topology): Labels {
  const gateways = new Set(pools.flatMap((pool) => pool.gateways))
  return new Map(
    [...new Set([...relays.map(({ host }) => host), ...nodes.map(({ name }) => name)])].map((name) => [
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
  const workloads = objectsIn(rendered).filter(({ kind }) => kind === 'DaemonSet') as readonly Workload[]
  const isNode = new Set(topology.nodes.map(({ name }) => name))
  const pods = workloads.flatMap(({ metadata, spec }) => {
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
    return hosts.map((node): ChartPod => {
      const scratch = `${pathsOf(topology.id).host(node)}/pods/${name}`
      return { node, workload: name, spec: pod, image, scratch }
    })
  })
  const daemons = pods.flatMap((pod) => pod.spec.containers.map(({ name }) => ofContainer(topology, pod, name)))
  const named = (...names: readonly DaemonName[]) => daemons.filter(({ daemon }) => names.includes(daemon))
  return {
    relays: named('relay'),
    agents: named('agent'),
    tunnels: named('fm-direct', 'fm-udp', 'fm-tcp'),
    gateways: named('gateway'),
    pods,
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

function ofContainer({ id }: Topology, { node, workload, spec, image, scratch }: ChartPod, name: string): Daemon {
  const daemon = DAEMONS.find((known) => known === name)
  if (daemon === undefined) throw new UsageError(`${workload}: the lab knows no container ${name}`)
  const command = containerCommand({ pod: spec, node, image, scratch }, name)
  return { host: node, daemon, namespaces: node, cgroup: `${cgroupOf(id)}/${node}`, command }
}
