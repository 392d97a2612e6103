// Answers HTTP CONNECT: dials what is asked for and joins the two, or says what is wrong in the reason phrase, which is all
// that kube-apiserver tells its users. What follows is opaque; it may last for days and be silent for hours.

import type { IncomingMessage } from 'node:http'
import { Socket } from 'node:net'
import type { Duplex } from 'node:stream'
import type { Log } from '../lib/log.ts'
import { breakOff, splice } from '../lib/net/splice.ts'
import { NodeDialError, statusOf } from './node-dial.ts'

/** @throws NodeDialError within 15 s. */
export type ConnectDial = (host: string, port: number, signal: AbortSignal) => Promise<Duplex>

export type ConnectOptions = {
  /** Who asked, for the log. */
  readonly caller: string
  readonly dial: ConnectDial
  readonly log: Log
  /**
   * Go's client of kube-apiserver fails on bytes that arrive with the answer: nothing is sent after it before the client
   * spoke, or a second passed.
   */
  readonly speaksFirst?: boolean
}

const QUIET_MS = 1_000
/** A client that is gone without a word is noticed by the kernel. */
const KEEP_ALIVE_MS = 60_000
const ESTABLISHED = 'HTTP/1.1 200 Connection established\r\n\r\n'
/** What a status line may carry. */
const MAX_REASON = 200

/** @param stream with allowHalfOpen. @param head what came with the request. */
export function answerConnect(options: ConnectOptions, request: IncomingMessage, stream: Duplex, head: Buffer): void {
  const { caller, dial, log } = options
  const target = parseTarget(request.url ?? '')
  if (target === undefined) return refuseConnect(stream, 400, 'CONNECT is for HOST:PORT')
  const { host, port } = target
  const gone = new AbortController()
  const onGone = (): void => gone.abort()
  stream.on('error', onGone)
  stream.once('close', onGone)
  if (stream instanceof Socket) {
    stream.setNoDelay(true)
    stream.setKeepAlive(true, KEEP_ALIVE_MS)
  }
  dial(host, port, gone.signal).then(
    (far) => {
      if (stream.destroyed) return breakOff(far)
      const startedMs = performance.now()
      log.info({ addr: `${host}:${port}`, caller }, 'stream opened')
      stream.write(ESTABLISHED)
      if (head.length > 0) far.write(head)
      const join = (): void =>
        splice(stream, far, (err) => {
          const seconds = Math.round((performance.now() - startedMs) / 100) / 10
          log.info({ addr: `${host}:${port}`, caller, seconds, ...(err && { reason: err.message }) }, 'stream closed')
        })
      if (head.length > 0 || options.speaksFirst !== true) join()
      else afterFirstWord(stream, far, join)
    },
    (error: unknown) => {
      const known = error instanceof NodeDialError ? error : undefined
      const reason = known?.message ?? 'the relay failed; its log says why'
      log[known === undefined ? 'error' : 'info']({ addr: `${host}:${port}`, caller, err: error }, 'stream refused')
      refuseConnect(stream, known === undefined ? 500 : statusOf(known.failure), reason)
    },
  )
}

/** Answers with an error and closes. @param reason is made fit for a status line. */
export function refuseConnect(stream: Duplex, status: number, reason: string, headers = ''): void {
  const phrase = reason.replaceAll(/[^\x20-\x7e]/g, ' ').slice(0, MAX_REASON)
  const body = `${reason}\n`
  stream.once('error', () => stream.destroy())
  stream.end(
    `HTTP/1.1 ${status} ${phrase}\r\n${headers}content-type: text/plain; charset=utf-8\r\n` +
      `content-length: ${Buffer.byteLength(body)}\r\nconnection: close\r\n\r\n${body}`,
    () => stream.destroy(),
  )
}

function afterFirstWord(stream: Duplex, far: Duplex, join: () => void): void {
  const start = (): void => {
    clearTimeout(timer)
    stream.off('data', onData)
    stream.off('end', start)
    stream.off('close', start)
    join()
  }
  const onData = (chunk: Buffer): void => {
    stream.pause()
    far.write(chunk)
    start()
  }
  const timer = setTimeout(start, QUIET_MS)
  stream.on('data', onData)
  stream.on('end', start)
  stream.on('close', start)
}

/** `HOST:PORT` or `[IPV6]:PORT`. */
function parseTarget(authority: string): { readonly host: string; readonly port: number } | undefined {
  const [, bracketed, plain, digits] = /^(?:\[([0-9a-f:.]+)\]|([^:/?#@[\]\s]{1,253})):(\d{1,5})$/i.exec(authority) ?? []
  const host = bracketed ?? plain
  const port = Number(digits)
  return host === undefined || port < 1 || port > 65535 ? undefined : { host, port }
}
