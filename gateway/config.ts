// The gateway's configuration: flags, FULMAR_ variables, and what `fulmar join` wrote for the rest.

import {
  integer,
  list,
  logLevel,
  optionalText,
  socketAddress,
  text,
  url,
  type Options,
  type Values,
} from '../lib/config.ts'
import { formatSocketAddress } from '../lib/address.ts'
import { RUN_DIR, STATE_DIR } from '../lib/owned.ts'

export const gatewayOptions = {
  relays: {
    name: 'relay',
    doc: 'URLs of relays, instead of those that the node joined',
    value: 'URL,…',
    fallback: '',
    parse: list(url('https')),
  },
  server: {
    name: 'server',
    doc: 'URL of the Kubernetes API, instead of the one that the node joined',
    value: 'URL',
    fallback: '',
    parse: (value) => (value === '' ? undefined : url('https', 'http')(value)),
  },
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
  stateDir: {
    name: 'state-dir',
    doc: 'keys, certificate and last known peers',
    value: 'DIR',
    fallback: STATE_DIR,
    parse: text,
  },
  runDir: { name: 'run-dir', doc: 'the Unix socket for status', value: 'DIR', fallback: RUN_DIR, parse: text },
  metrics: {
    name: 'metrics',
    doc: 'where /metrics and /healthz answer',
    value: 'ADDRESS:PORT',
    fallback: '127.0.0.1:9471',
    parse: socketAddress,
  },
  logLevel,
} satisfies Options

export type GatewayConfig = Values<typeof gatewayOptions>

/** Flags win over what `fulmar join` wrote. */
export function withFlags<T extends Joined>(identity: T, { relays, stun, server }: GatewayConfig): T {
  return {
    ...identity,
    ...(relays.length > 0 ? { relays: relays.map(String) } : {}),
    ...(stun.length > 0 ? { stun: stun.map(formatSocketAddress) } : {}),
    ...(server === undefined ? {} : { server: String(server) }),
  }
}
type Joined = { readonly relays: readonly string[]; readonly stun: readonly string[]; readonly server: string }
