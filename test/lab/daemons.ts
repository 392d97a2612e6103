// Which processes run on which hosts of a lab, with their command lines: the relay in the cloud, an agent per node, a
// gateway per pool or several, a server per pod, and one process for all kubelets.

import { MACHINE } from './enter.ts'
import { cgroupOf, CLOUD } from './names.ts'
import type { PodServer } from './pod-server.ts'
import { urlOf, type LabRelay, type Topology } from './topology.ts'

/** A process that the lab keeps alive. */
export type Daemon = {
  /** The host that it is asked for by, and whose folder has its log. */
  readonly host: string
  readonly daemon: DaemonName
  /** The host whose network and mounts it has: the node, for a hostNetwork pod; MACHINE for none. */
  readonly namespaces: string
  readonly cgroup: string
  readonly command: readonly string[]
  /** Where it answers, if not in its host's own folder by its own name. */
  readonly socket?: { readonly folder: string; readonly file: string }
}
/**
 * `fm-…` are wireguard-go by its devices, where it is a process of the lab and not one of the gateway, and `kubernetes` is the
 * API that a chart is installed on.
 */
export const DAEMONS = [
  'relay',
  'agent',
  'gateway',
  'pod',
  'kubelet',
  'fm-direct',
  'fm-udp',
  'fm-tcp',
  'kubernetes',
] as const
export type DaemonName = (typeof DAEMONS)[number]
/** Those that answer on a socket for status; the others say on descriptor 3 that they run. */
export const ANSWERING: readonly DaemonName[] = ['relay', 'agent', 'gateway', 'kubernetes']

/** Paths on this machine that command lines start with. */
export type Programs = {
  readonly node: string
  readonly fulmar: string
  readonly podServer: string
  readonly kubelets: string
}

export const STUN_PORTS = [3478, 3479] as const

export function relayOf(
  { id, relays }: Topology,
  relay: LabRelay,
  { node, fulmar }: Programs,
  manifests: string,
  flags: readonly string[],
): Daemon {
  const replicas = relays.map(({ addresses }) => addresses.map((address) => urlOf(address)).join('+')).join()
  const options = [
    ['--listen', '0.0.0.0:443,[::]:443'],
    ['--public', relay.addresses.join(',')],
    ['--stun', relay.stun.join(',')],
    ['--stun-ports', STUN_PORTS.join(',')],
    ['--manifests', manifests],
    relays.length > 1 ? ['--replicas', replicas] : [],
  ]
  return onNode(id, relay.host, 'relay', [node, fulmar, 'relay', ...options.flat(), ...flags])
}

/** @param cgroups where cgroup2 is mounted; BPF serves a node's own group and never the machine. */
export const agentsOf = (
  { id, nodes }: Topology,
  { node, fulmar }: Programs,
  cgroups: string,
  flags: readonly string[],
): readonly Daemon[] =>
  nodes.map(({ name }) => {
    const group = `${cgroups}/${cgroupOf(id)}/${name}`
    return onNode(id, name, 'agent', [node, fulmar, 'agent', '--cgroup', group, ...flags])
  })

export const gatewaysOf = (
  { id, pools }: Topology,
  { node, fulmar }: Programs,
  flags: readonly string[],
): readonly Daemon[] =>
  pools
    .flatMap(({ gateways }) => gateways)
    .map((name) => onNode(id, name, 'gateway', [node, fulmar, 'gateway', ...flags]))

export const podsOf = ({ id, pods }: Topology, { node, podServer }: Programs): readonly Daemon[] =>
  pods.map(({ host, node: machine, name, namespace, hostNetwork, tcpPorts, udpPorts }) => {
    const self: PodServer = { pod: name, namespace, node: machine, tcp: tcpPorts, udp: udpPorts }
    return {
      host,
      daemon: 'pod',
      namespaces: hostNetwork ? machine : host,
      cgroup: `${cgroupOf(id)}/${machine}/${host}`,
      command: [node, podServer, JSON.stringify(self)],
    }
  })

/** It enters the hosts itself, as a container runtime does: in the network of none of them. */
export const kubeletsOf = ({ id }: Topology, { node, kubelets }: Programs): Daemon => ({
  host: CLOUD,
  daemon: 'kubelet',
  namespaces: MACHINE,
  cgroup: `${cgroupOf(id)}/kubelets`,
  command: [node, kubelets, id],
})

const onNode = (id: string, host: string, daemon: DaemonName, command: readonly string[]): Daemon => ({
  host,
  daemon,
  namespaces: host,
  cgroup: `${cgroupOf(id)}/${host}`,
  command,
})
