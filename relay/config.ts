// The relay's flags.

import { isIP } from 'node:net'
import { apiOptions, logLevelOption, metricsOption, runDirOption, stateDirOption } from '../lib/common-options.ts'
import { parseCidr } from '../lib/cidr.ts'
import {
  duration,
  integer,
  ipAddress,
  list,
  optionalText,
  socketAddress,
  text,
  type Options,
  type Values,
} from '../lib/config.ts'
import { parseReplicas } from '../lib/replicas.ts'
import type { PortRange } from './udp-relay.ts'

const hostName = (value: string): string => {
  if (isIP(value) === 0 && !/^[a-z0-9]([-.a-z0-9]*[a-z0-9])?$/i.test(value))
    throw new Error(`${value} is neither an IP address nor a name`)
  return value
}
const atLeastOne =
  <T>(parse: (value: string) => readonly T[]) =>
  (value: string): readonly T[] => {
    const items = parse(value)
    if (items.length === 0) throw new Error('is empty')
    return items
  }
const portPair = (value: string): readonly [number, number] => {
  const [first, second, ...rest] = list(integer(1, 65535))(value)
  if (first === undefined || second === undefined || rest.length > 0 || first === second)
    throw new Error('is not two different ports')
  return [first, second]
}
/** What the sessions of two gateways need: a port for STUN and a pair. */
const MIN_RANGE = 4
const portRange = (value: string): PortRange | undefined => {
  if (value.trim() === '') return undefined
  const [, first, last] = /^(\d+)-(\d+)$/.exec(value.trim()) ?? []
  if (first === undefined || last === undefined) throw new Error('is not FIRST-LAST, such as 40000-49999')
  const port = integer(1024, 65535)
  const range = { first: port(first), last: port(last) }
  if (range.last - range.first + 1 < MIN_RANGE) throw new Error(`is a range of fewer than ${MIN_RANGE} ports`)
  return range
}

const path = (value: string): string | undefined => {
  if (value !== '' && !value.startsWith('/')) throw new Error('is no absolute path')
  return optionalText(value)
}
const prefix = (value: string): string => {
  const cidr = parseCidr(value)
  if (cidr === undefined) throw new Error(`${value} is no prefix such as 10.0.0.0/16`)
  return cidr.text
}

const serviceAccount = (value: string): string => {
  if (!/^[a-z0-9]([-a-z0-9]*[a-z0-9])?\/[a-z0-9]([-.a-z0-9]*[a-z0-9])?$/.test(value))
    throw new Error(`${value} is not NAMESPACE/NAME`)
  return value
}
const DAY_MS = 86_400_000
/** A renewal must have the time to be tried a few times. */
const MIN_LIFE_MS = 10_000

export const OPTIONS = {
  listen: {
    name: 'listen',
    value: 'ADDRESS:PORT,…',
    doc: 'where nodes and users dial in by TLS',
    fallback: '0.0.0.0:443,[::]:443',
    parse: atLeastOne(list(socketAddress)),
  },
  public: {
    name: 'public',
    value: 'HOST,…',
    doc: 'addresses and names by which the edge reaches this relay',
    parse: atLeastOne(list(hostName)),
  },
  stun: {
    name: 'stun',
    value: 'ADDRESS,…',
    doc: 'one or two addresses of this machine for STUN; none switches it off',
    fallback: '',
    parse: list(ipAddress),
  },
  stunPorts: {
    name: 'stun-ports',
    value: 'PORT,PORT',
    doc: 'the two UDP ports for STUN',
    fallback: '3478,3479',
    parse: portPair,
  },
  udpRelayPorts: {
    name: 'udp-relay-ports',
    value: 'FIRST-LAST',
    doc: 'UDP ports for relayed sessions, two for each; the edge must reach them all; none switches it off',
    fallback: '40000-49999',
    parse: portRange,
  },
  certificateLifeMs: {
    name: 'certificate-life',
    value: 'TIME',
    doc: 'how long the certificate of a node lives; it is renewed after 70 to 80 % of that',
    fallback: '90d',
    parse: duration(MIN_LIFE_MS, 3650 * DAY_MS),
  },
  renewalGraceMs: {
    name: 'renewal-grace',
    value: 'TIME',
    doc: 'for how long after its end a certificate is still renewed, and good for nothing else',
    fallback: '275d',
    parse: duration(0, 3650 * DAY_MS),
  },
  manifests: {
    name: 'manifests',
    value: 'DIR',
    doc: 'a folder of Kubernetes objects, served as an API; without it there is none',
    fallback: '',
    parse: optionalText,
  },
  ...apiOptions,
  server: {
    ...apiOptions.server,
    doc: 'URL of the Kubernetes API whose Nodes are the nodes of this mesh; those of --manifests without it',
  },
  serviceAccounts: {
    name: 'service-accounts',
    value: 'NAMESPACE/NAME,…',
    doc: 'ServiceAccounts whose pods may join the nodes that they run on, by --server; none without it',
    fallback: '',
    parse: list(serviceAccount),
  },
  egressSocket: {
    name: 'egress-socket',
    value: 'PATH',
    doc: 'Unix socket for the CONNECTs of kube-apiserver on this host; none without it',
    fallback: '',
    parse: path,
  },
  egressListen: {
    name: 'egress-listen',
    value: 'ADDRESS:PORT,…',
    doc: 'where CONNECTs of kube-apiserver are taken by TLS, with a client certificate of this mesh; nowhere without it',
    fallback: '',
    parse: list(socketAddress),
  },
  egressUsers: {
    name: 'egress-users',
    value: 'NAME,…',
    doc: 'whose certificates may, beside the group system:masters',
    fallback: 'kube-apiserver',
    parse: list(text),
  },
  cloudNodes: {
    name: 'cloud-nodes',
    value: 'CIDR,…',
    doc: 'addresses of nodes that are dialled straight while they have no session; others never are',
    fallback: '',
    parse: list(prefix),
  },
  kubeletListen: {
    name: 'kubelet-listen',
    value: 'ADDRESS:PORT,…',
    doc: 'where clients of kubelets are taken by the name or address of the node that they dial, most of all :10250; nowhere without it',
    fallback: '',
    parse: list(socketAddress),
  },
  proxyUsers: {
    name: 'proxy-users',
    value: 'FILE',
    doc: 'who may reach which nodes and targets by the proxy on the port of the relay; read again when it changes',
    fallback: '',
    parse: path,
  },
  kubeletCa: {
    name: 'kubelet-ca',
    value: 'FILE',
    doc: 'whose certificates kubelets serve by (PEM), for kubectl logs, exec and the like by the API; without it, this mesh',
    fallback: '',
    parse: path,
  },
  replicas: {
    name: 'replicas',
    value: 'URL[+URL…],…',
    doc: 'all relays of this mesh, this one among them, the same text for each; agents are told. Several URLs of one: with +',
    fallback: '',
    parse: parseReplicas,
  },
  drainSeconds: {
    name: 'drain',
    value: 'SECONDS',
    doc: 'for how long streams may go on when this relay is told to end and agents are sent to others of --replicas',
    fallback: '300',
    parse: integer(0, 86_400),
  },
  stateDir: stateDirOption('certificates and tokens'),
  runDir: runDirOption('the Unix socket for status'),
  metrics: metricsOption(9472),
  logLevel: logLevelOption,
} satisfies Options

export type RelayConfig = Values<typeof OPTIONS>
