// The gateway's configuration: flags, FULMAR_ variables, and what `fulmar join` wrote for the rest.

import {
  apiOptions,
  joinOptions,
  lanPortOption,
  logLevelOption,
  metricsOption,
  numbersOptions,
  runDirOption,
  stateDirOption,
} from '../lib/common-options.ts'
import { duration, integer, list, optionalText, socketAddress, text, type Options, type Values } from '../lib/config.ts'
import { formatSocketAddress } from '../lib/address.ts'
import { parseReplicas } from '../lib/replicas.ts'

export const gatewayOptions = {
  relays: {
    name: 'relay',
    doc: 'the relays, of which it holds sessions with the first two, instead of those that they tell; as of their --replicas',
    value: 'URL[+URL…],…',
    fallback: '',
    parse: parseReplicas,
  },
  ...apiOptions,
  ...joinOptions,
  stun: {
    name: 'stun',
    doc: 'STUN servers, instead of those that the node joined',
    value: 'ADDRESS:PORT,…',
    fallback: '',
    parse: list(socketAddress),
  },
  sourceAddress: {
    name: 'source-address',
    doc: "the mesh address of this node, instead of one of its podCIDR's",
    value: 'ADDRESS',
    fallback: '',
    parse: optionalText,
  },
  coldAfterMs: {
    name: 'cold-after',
    doc: 'seconds without traffic after which nothing is sent to keep a path up',
    value: 'SECONDS',
    fallback: '600',
    parse: (value) => integer(1, 1_000_000)(value) * 1000,
  },
  warm: {
    name: 'warm',
    doc: 'pools whose paths are kept up without traffic, or `all`',
    value: 'POOL,…',
    fallback: '',
    parse: list(text),
  },
  peerGraceMs: {
    name: 'peer-grace',
    doc: 'for how long after the end of its certificate a peer that was known stays one, the cloud being out of reach',
    value: 'TIME',
    fallback: '365d',
    parse: duration(0, 36_500 * 86_400_000),
  },
  lanPort: lanPortOption,
  ...numbersOptions,
  stateDir: stateDirOption('keys, certificate and last known peers'),
  runDir: runDirOption('the Unix socket for status'),
  metrics: metricsOption(9471),
  logLevel: logLevelOption,
} satisfies Options

export type GatewayConfig = Values<typeof gatewayOptions>

/** Flags win over what `fulmar join` wrote. */
export function withFlags<T extends Joined>(identity: T, { relays, stun, server }: GatewayConfig): T {
  return {
    ...identity,
    ...(relays.length > 0 ? { relays: relays.flat() } : {}),
    ...(stun.length > 0 ? { stun: stun.map(formatSocketAddress) } : {}),
    ...(server === undefined ? {} : { server: String(server) }),
  }
}
type Joined = { readonly relays: readonly string[]; readonly stun: readonly string[]; readonly server: string }
