// The options that several daemons or commands have: one row each, so that a flag is the same wherever it stands.

import type { SocketAddress } from './address.ts'
import { integer, optional, optionalText, socketAddress, text, url, type Option } from './config.ts'
import { BPF_DIR, LAN_PORT, NUMBERS, RUN_DIR, STATE_DIR, type Numbers } from './owned.ts'

/** @param doc what this one keeps or looks for there. */
export const stateDirOption = (doc: string): Option<string> => ({
  name: 'state-dir',
  value: 'DIR',
  doc,
  fallback: STATE_DIR,
  parse: text,
})

/** @param doc whose sockets. */
export const runDirOption = (doc: string): Option<string> => ({
  name: 'run-dir',
  value: 'DIR',
  doc,
  fallback: RUN_DIR,
  parse: text,
})

/** The agent pins there, a cleanup removes it. */
export const bpfDirOption: Option<string> = {
  name: 'bpf-dir',
  value: 'DIR',
  doc: 'where BPF links and maps are pinned, in a BPF file system',
  fallback: BPF_DIR,
  parse: text,
}

/** @param port of this daemon, so that all can run on one host. */
export const metricsOption = (port: number): Option<SocketAddress> => ({
  name: 'metrics',
  value: 'ADDRESS:PORT',
  doc: 'where /metrics and /healthz answer',
  fallback: `127.0.0.1:${port}`,
  parse: socketAddress,
})

/** How a daemon reaches the Kubernetes API. */
export const apiOptions = {
  server: {
    name: 'server',
    value: 'URL',
    doc: 'URL of the Kubernetes API, instead of the one that the node joined',
    fallback: '',
    parse: optional(url('https', 'http')),
  } satisfies Option<URL | undefined>,
  serverToken: {
    name: 'server-token',
    value: 'FILE',
    doc: 'a bearer token for it, such as of a ServiceAccount, instead of the certificate of the node',
    fallback: '',
    parse: optionalText,
  } satisfies Option<string | undefined>,
  serverCa: {
    name: 'server-ca',
    value: 'FILE',
    doc: 'the CA of its certificate (PEM), instead of the one of this mesh',
    fallback: '',
    parse: optionalText,
  } satisfies Option<string | undefined>,
}

/** How a pod makes its node one of the mesh, where it is none yet. */
export const joinOptions = {
  joinRelay: {
    name: 'join-relay',
    value: 'URL',
    doc: 'the relay to join where this machine is no node yet, by the token of --join-token',
    fallback: '',
    parse: optional(url('https')),
  } satisfies Option<URL | undefined>,
  joinCa: {
    name: 'join-ca',
    value: 'FILE',
    doc: 'the CA of that relay (PEM): ca.crt in the folder issuer of its state',
    fallback: '',
    parse: optionalText,
  } satisfies Option<string | undefined>,
  joinToken: {
    name: 'join-token',
    value: 'FILE',
    doc: 'a projected ServiceAccount token for the audience fulmar',
    fallback: '',
    parse: optionalText,
  } satisfies Option<string | undefined>,
}

const LOG_LEVELS: readonly string[] = ['trace', 'debug', 'info', 'warn', 'error', 'silent']

export const logLevelOption: Option<string> = {
  name: 'log-level',
  value: 'LEVEL',
  doc: 'what to log: trace, debug, info, warn, error or silent',
  fallback: 'info',
  parse: (value) => {
    if (!LOG_LEVELS.includes(value)) throw new Error('is no log level')
    return value
  },
}

/** The same on every node of a pool. */
export const lanPortOption: Option<number> = {
  name: 'lan-port',
  value: 'PORT',
  doc: 'UDP port of gateways on the LAN of their pool; agents have the next one',
  fallback: String(LAN_PORT),
  parse: integer(1, 65534),
}

const hex = (value: number) => `0x${value.toString(16)}`

const fwmark = (value: string): { readonly mark: number; readonly markMask: number } => {
  const [, mark, markMask] = /^(0x[0-9a-f]{1,8})\/(0x[0-9a-f]{1,8})$/i.exec(value)?.map(Number) ?? []
  if (mark === undefined || markMask === undefined)
    throw new Error('is not MARK/MASK in hex, such as 0x46000000/0xff000000')
  if (mark === 0 || (mark & ~markMask) !== 0) throw new Error('has no bit, or bits outside of its mask')
  return { mark, markMask }
}

/** The same for agent and gateway of a node, and for its cleanup. */
export const numbersOptions = {
  routeTable: {
    name: 'route-table',
    doc: 'routing table of the mesh, and with the next one the way back; the same for agent and gateway of a node',
    value: 'N',
    fallback: String(NUMBERS.routeTable),
    // Tables up to 255 are the system's.
    parse: integer(256, 2 ** 31 - 2),
  } satisfies Option<number>,
  rulePreference: {
    name: 'rule-preference',
    doc: 'preference of the rule for it, and with the one before of the rules for the way back',
    value: 'N',
    fallback: String(NUMBERS.rulePreference),
    parse: integer(2, 32765),
  } satisfies Option<number>,
  fwmark: {
    name: 'fwmark',
    doc: "mark of WireGuard's own packets, which lets them past it",
    value: 'MARK/MASK',
    fallback: `${hex(NUMBERS.mark)}/${hex(NUMBERS.markMask)}`,
    parse: fwmark,
  } satisfies Option<ReturnType<typeof fwmark>>,
}

export const numbersOf = (config: {
  readonly routeTable: number
  readonly rulePreference: number
  readonly fwmark: ReturnType<typeof fwmark>
}): Numbers => ({
  routeTable: config.routeTable,
  returnTable: config.routeTable + 1,
  rulePreference: config.rulePreference,
  returnPreference: config.rulePreference - 1,
  ...config.fwmark,
})
