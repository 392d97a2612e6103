// What went wrong between a client and a Kubernetes API: with the server's own words where it answered.

/** `code` is Kubernetes' reason (`Forbidden`, `Expired`, …), or `Unreachable` or `BadResponse` where there is none. */
export class ApiError extends Error {
  readonly code: string
  /** The HTTP status, or that of a Status object inside a watch; undefined where nothing was answered. */
  readonly status: number | undefined
  /** How long the server asks to be left alone. */
  readonly retryAfterMs: number | undefined

  constructor(
    message: string,
    options: { code: string; status?: number | undefined; retryAfterMs?: number | undefined; cause?: unknown },
  ) {
    super(message, { cause: options.cause })
    this.name = 'ApiError'
    this.code = options.code
    this.status = options.status
    this.retryAfterMs = options.retryAfterMs
  }
}

/** The fields of meta/v1 Status that are read. */
export type StatusBody = { readonly code?: number; readonly message?: string; readonly reason?: string }

/** @param what `GET https://…/api/v1/nodes`. @param text the body of an answer that is no success. */
export function errorOfResponse(what: string, status: number, text: string, retryAfter: string | undefined): ApiError {
  const body = parseStatus(text)
  const seconds = Number(retryAfter)
  return new ApiError(`${what}: ${status} ${body?.message ?? (text.trim().slice(0, 200) || 'without a message')}`, {
    code: body?.reason || 'BadResponse',
    status,
    retryAfterMs: retryAfter !== undefined && seconds >= 0 ? seconds * 1000 : undefined,
  })
}

/** True if what was asked for lies too far back: list again. */
export const isExpired = (error: unknown): boolean => error instanceof ApiError && error.status === 410
export const isNotFound = (error: unknown): boolean => error instanceof ApiError && error.status === 404

function parseStatus(text: string): StatusBody | undefined {
  try {
    const value: unknown = JSON.parse(text)
    return typeof value === 'object' && value !== null ? value : undefined
  } catch {
    return undefined
  }
}
