// The options that several daemons or commands have: one row each, so that a flag is the same wherever it stands.

import type { SocketAddress } from './address.ts'
import { integer, socketAddress, text, url, type Option } from './config.ts'
import { LAN_PORT, RUN_DIR, STATE_DIR } from './owned.ts'

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

/** @param port of this daemon, so that all can run on one host. */
export const metricsOption = (port: number): Option<SocketAddress> => ({
  name: 'metrics',
  value: 'ADDRESS:PORT',
  doc: 'where /metrics and /healthz answer',
  fallback: `127.0.0.1:${port}`,
  parse: socketAddress,
})

export const apiServerOption: Option<URL | undefined> = {
  name: 'server',
  value: 'URL',
  doc: 'URL of the Kubernetes API, instead of the one that the node joined',
  fallback: '',
  parse: (value) => (value === '' ? undefined : url('https', 'http')(value)),
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
