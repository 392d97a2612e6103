// A port that cannot be had, in words that tell who has it and what to do.

import { UsageError } from './lifetime.ts'

/** @param purpose what the port is for. @param remedy what else may be done than to end who has it. */
export function portError(
  protocol: 'UDP' | 'TCP',
  port: number,
  purpose: string,
  remedy: string | undefined,
  cause: unknown,
): UsageError {
  const { code, message } = cause as NodeJS.ErrnoException
  const where = `${protocol} port ${port} for ${purpose}`
  if (code !== 'EADDRINUSE') return new UsageError(`${where}: ${message}`, { cause })
  const ss = `ss -${protocol === 'UDP' ? 'u' : 't'}lnp 'sport = :${port}'`
  const otherwise = remedy === undefined ? '' : `, or ${remedy}`
  return new UsageError(`${where} is in use by another process, which ${ss} names; end that${otherwise}`, { cause })
}
