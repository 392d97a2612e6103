// The relay's flags.

import { isIP } from 'node:net'
import { logLevelOption, metricsOption, runDirOption, stateDirOption } from '../lib/common-options.ts'
import { integer, ipAddress, list, optionalText, socketAddress, type Options, type Values } from '../lib/config.ts'
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
  manifests: {
    name: 'manifests',
    value: 'DIR',
    doc: 'a folder of Kubernetes objects, served as an API; without it there is none',
    fallback: '',
    parse: optionalText,
  },
  stateDir: stateDirOption('certificates and tokens'),
  runDir: runDirOption('the Unix socket for status'),
  metrics: metricsOption(9472),
  logLevel: logLevelOption,
} satisfies Options

export type RelayConfig = Values<typeof OPTIONS>
