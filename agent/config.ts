// The agent's configuration: flags, FULMAR_ variables, and what `fulmar join` wrote for the rest.

import { isIP } from 'node:net'
import { parseSocketAddress } from '../lib/address.ts'
import { parseCidr } from '../lib/cidr.ts'
import {
  apiOptions,
  joinOptions,
  bpfDirOption,
  lanPortOption,
  logLevelOption,
  metricsOption,
  numbersOptions,
  runDirOption,
  stateDirOption,
} from '../lib/common-options.ts'
import { flag, integer, ipAddress, list, optionalText, text, type Options, type Values } from '../lib/config.ts'
import { DNS_ADDRESSES, VXLAN_ID, VXLAN_PORT } from '../lib/owned.ts'
import { parseReplicas } from '../lib/replicas.ts'
import type { ServiceSelection } from './cluster.ts'
import type { PodNames } from './dns-zone.ts'
import { parseTargets } from './ops-targets.ts'
import { parseStubs } from './resolv-conf.ts'
import type { ServicePath } from './socket-lb-loop.ts'

const dnsServer = (value: string): string => {
  if (isIP(value) === 0 && parseSocketAddress(value) === undefined)
    throw new Error(`${value} is neither ADDRESS nor ADDRESS:PORT`)
  return value
}
const servicePath = (value: string): ServicePath => {
  if (value === 'auto' || value === 'bpf' || value === 'nft' || value === 'none') return value
  throw new Error('is neither auto, bpf, nft nor none')
}
const serviceSelection = (value: string): ServiceSelection => {
  if (value === 'all' || value === 'labelled') return value
  throw new Error('is neither all nor labelled')
}
const prefix = (value: string): string => {
  const cidr = parseCidr(value)
  if (cidr === undefined) throw new Error(`${value} is no prefix such as 192.168.1.0/24`)
  return cidr.text
}
const folder = (value: string): string | undefined => {
  if (value !== '' && !value.startsWith('/')) throw new Error('is no absolute path')
  return value === '' ? undefined : value
}
const domain = (value: string): string => {
  const name = value.toLowerCase().replace(/^\.|\.$/g, '')
  if (!/^[a-z0-9-]{1,63}(\.[a-z0-9-]{1,63})*$/.test(name)) throw new Error('is no domain such as cluster.local')
  return name
}
const domains = (value: string): readonly string[] => {
  const names = list(domain)(value)
  if (names.length === 0) throw new Error('is no domain such as cluster.local')
  return [...new Set(names)]
}
const podNames = (value: string): PodNames => {
  if (value === 'disabled' || value === 'insecure') return value
  if (value === 'verified') throw new Error('needs all Pods, which the agent does not follow; use insecure or disabled')
  throw new Error('is neither disabled nor insecure')
}
const serviceName = (value: string): { namespace: string; name: string } | undefined => {
  const [namespace, name, ...rest] = value.split('/')
  if (value === '') return undefined
  if (!namespace || !name || rest.length > 0) throw new Error('is not NAMESPACE/NAME')
  return { namespace, name }
}

export const agentOptions = {
  node: {
    name: 'node',
    doc: 'name of this node, instead of the one that it joined as',
    value: 'NAME',
    fallback: '',
    parse: optionalText,
  },
  ...apiOptions,
  ...joinOptions,
  clusterDomains: {
    name: 'cluster-domain',
    doc: "the cluster's DNS domain; of several the first is what addresses lead back to",
    value: 'DOMAIN,…',
    fallback: 'cluster.local',
    parse: domains,
  },
  dnsAddresses: {
    name: 'dns-addresses',
    doc: 'where DNS answers; put on the loopback device where they are not there',
    value: 'ADDRESS,…',
    fallback: DNS_ADDRESSES.join(),
    parse: list(ipAddress),
  },
  dnsPort: {
    name: 'dns-port',
    doc: 'port of DNS; the cluster DNS is taken over on 53 only',
    value: 'PORT',
    fallback: '53',
    parse: integer(1, 65535),
  },
  dnsUpstream: {
    name: 'dns-upstream',
    doc: 'resolvers for names outside of the cluster, instead of those of /etc/resolv.conf',
    value: 'ADDRESS[:PORT],…',
    fallback: '',
    parse: list(dnsServer),
  },
  dnsStubs: {
    name: 'dns-stub',
    doc: 'resolvers for the names of a domain; a domain with two of them stands twice',
    value: 'DOMAIN=ADDRESS[:PORT],…',
    fallback: '',
    parse: parseStubs,
  },
  dnsPods: {
    name: 'dns-pods',
    doc: 'whether names of pods such as 10-244-1-5.shop.pod are answered: disabled or insecure (as the name says)',
    value: 'MODE',
    fallback: 'insecure',
    parse: podNames,
  },
  dnsStaleSeconds: {
    name: 'dns-stale',
    doc: 'for how long what is known of outside names is served when no resolver answers, in seconds',
    value: 'SECONDS',
    fallback: '3600',
    parse: integer(0, 7 * 86_400),
  },
  clusterDnsService: {
    name: 'cluster-dns-service',
    doc: 'the Service whose ClusterIPs the agent answers for; empty for none',
    value: 'NAMESPACE/NAME',
    fallback: 'kube-system/kube-dns',
    parse: serviceName,
  },
  services: {
    name: 'services',
    doc: 'which Services are served: all but those labelled for other proxies, or only those labelled for this one',
    value: 'all|labelled',
    fallback: 'all',
    parse: serviceSelection,
  },
  nodePortAddresses: {
    name: 'nodeport-addresses',
    doc: 'which addresses of this node have NodePorts, instead of its first InternalIP of each family',
    value: 'CIDR,…',
    fallback: '',
    parse: list(prefix),
  },
  serviceCidrs: {
    name: 'service-cidrs',
    doc: 'prefixes that ClusterIPs are taken from: calls to addresses in them that no Service has are dropped',
    value: 'CIDR,…',
    fallback: '',
    parse: list(prefix),
  },
  servicePath: {
    name: 'service-path',
    doc:
      'what serves services: nft, BPF over it for TCP calls of this node’s processes, BPF where it works and nothing ' +
      'where Cilium does (auto), or nothing',
    value: 'auto|bpf|nft|none',
    fallback: 'auto',
    parse: servicePath,
  },
  cgroup: {
    name: 'cgroup',
    doc: 'cgroup2 folder of the processes that BPF serves, instead of the whole machine',
    value: 'DIR',
    fallback: '',
    parse: folder,
  },
  cgroupsExcept: {
    name: 'cgroups-except',
    doc: 'cgroup2 folders of processes that BPF leaves to nft, such as those that a sidecar intercepts',
    value: 'DIR,…',
    fallback: '',
    parse: list(text),
  },
  bpfDir: bpfDirOption,
  lanPort: lanPortOption,
  vxlanPort: {
    name: 'vxlan-port',
    doc: 'UDP port of VXLAN between nodes of a pool that share no link; the same on all of them',
    value: 'PORT',
    fallback: String(VXLAN_PORT),
    parse: integer(1, 65535),
  },
  vxlanId: {
    name: 'vxlan-id',
    doc: 'VXLAN network identifier of that; the same on all of them',
    value: 'VNI',
    fallback: String(VXLAN_ID),
    parse: integer(1, (1 << 24) - 1),
  },
  overlayPods: {
    name: 'overlay-pods',
    doc: 'also carry what pods of this pool say to each other over it, where nobody else (a CNI) routes that',
    fallback: 'false',
    parse: flag,
  },
  ops: {
    name: 'ops',
    doc: 'hold a session with the relay, on which kubectl reaches this node: true or false',
    value: 'true|false',
    fallback: 'true',
    parse: flag,
  },
  relays: {
    name: 'relay',
    doc: 'the relays to hold it with, two of them at a time, instead of those that the relays tell; as of their --replicas',
    value: 'URL[+URL…],…',
    fallback: '',
    parse: parseReplicas,
  },
  kubeletPort: {
    name: 'kubelet-port',
    doc: "port of this node's kubelet, which the cloud may reach",
    value: 'PORT',
    fallback: '10250',
    parse: integer(1, 65535),
  },
  opsTargets: {
    name: 'ops-targets',
    doc: 'what else the cloud may reach through this node, by its name; a host name that leads into the LAN says to which prefix',
    value: '[NAME=]HOST:PORT[@CIDR],…',
    fallback: '',
    parse: parseTargets,
  },
  ...numbersOptions,
  stateDir: stateDirOption('certificate and last known objects'),
  runDir: runDirOption('the Unix socket for status'),
  metrics: metricsOption(9470),
  logLevel: logLevelOption,
} satisfies Options

export type AgentConfig = Values<typeof agentOptions>
