// One logger per daemon: JSON lines on stdout through pino. Field names are the same everywhere:
// node, pool, peer, service, addr, path, err. Messages are constant; data goes in fields.

import { pino, type Logger } from 'pino'

export type Log = Pick<Logger, 'debug' | 'info' | 'warn' | 'error'>

/** @param level a pino level; `silent` switches the log off. */
export function createLog(daemon: string, level: string): Logger {
  return pino({
    level,
    base: { daemon },
    timestamp: pino.stdTimeFunctions.isoTime,
    formatters: { level: (label) => ({ level: label }) },
  })
}
