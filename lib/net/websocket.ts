// A WebSocket that carries much and costs little while it is idle: from the handshake on it is our own codec on the TLS
// socket (lib/wire/websocket.ts). Binary messages only, without extensions.

import { randomBytes } from 'node:crypto'
import type { IncomingMessage } from 'node:http'
import type { Socket } from 'node:net'
import type { Duplex } from 'node:stream'
import type { ConnectionOptions } from 'node:tls'
import {
  acceptOf,
  CLOSE_CODE,
  closePayload,
  controlFrame,
  FrameReader,
  MAX_HEADER_BYTES,
  OPCODE,
  readClosePayload,
  WebSocketError,
  writeHeaderBefore,
} from '../wire/websocket.ts'
import { https } from './http.ts'
import { onAbort } from './lifetime.ts'
import { tlsTargetOf } from './relay-tls.ts'
import { onPassed } from './passing-memory.ts'

export type WebSocketEnd = { readonly code: number; readonly reason: string; readonly error?: Error }

export type WebSocketUser = {
  /** @param bytes a view for now; @param end no more of this message follows. @throws Error to close with its code. */
  readonly payload: (bytes: Buffer, end: boolean) => void
  /** Once, when the connection is gone. */
  readonly end: (why: WebSocketEnd) => void
}

export type Role = 'client' | 'server'

/** What a payload that is sent leaves free before it. */
export const HEADROOM_BYTES = MAX_HEADER_BYTES
/** A closing handshake may take so long before the connection is cut. */
const CLOSE_TIMEOUT_MS = 2_000
/** Who has so much to read yet gets no answer to a ping: one who pings and never reads would fill our memory. */
const MAX_UNREAD_BYTES = 512 * 1024

export class RawWebSocket {
  readonly #socket: Duplex
  readonly #role: Role
  #head: Buffer | undefined
  #user: WebSocketUser | undefined
  #closing = false
  #deaf = false
  #received: { readonly code: number; readonly reason: string } | undefined
  #error: Error | undefined

  /** @param socket whose handshake is done. @param head what came with it. */
  constructor(socket: Duplex, role: Role, head: Buffer) {
    this.#socket = socket
    this.#role = role
    this.#head = head
    socket.on('error', (error) => (this.#error ??= error))
  }

  /** True while messages may be sent. */
  get open(): boolean {
    return !this.#closing && this.#socket.writable
  }

  /** To be called once. @param maxMessageBytes of what the other side may send. */
  use(user: WebSocketUser, maxMessageBytes: number): void {
    const socket = this.#socket
    this.#user = user
    const control = (opcode: number, payload: Buffer): void => this.#control(opcode, payload)
    const reader = new FrameReader({ payload: user.payload, control }, this.#role === 'server', maxMessageBytes)
    const read = (chunk: Buffer): void => {
      if (this.#deaf) return
      onPassed(chunk.length, false)
      try {
        reader.read(chunk)
      } catch (error) {
        // Where the next frame begins cannot be known any more.
        this.#deaf = true
        this.#error ??= error as Error
        this.close(error instanceof WebSocketError ? error.closeCode : CLOSE_CODE.policy, (error as Error).message)
      }
    }
    socket.once('close', () => this.#end())
    if (socket.destroyed) return void setImmediate(() => this.#end())
    // Read like all else when this call is over, which whoever is told of it may need.
    if (this.#head!.length > 0) socket.unshift(this.#head)
    this.#head = undefined
    socket.on('data', read)
    socket.once('end', () => this.#finish())
  }

  /**
   * Sends a binary message that lies in a buffer from HEADROOM_BYTES on.
   * @param done when it was handed to the kernel, or the connection is gone; the buffer is the caller's again.
   */
  send(buffer: Buffer, length: number, done: () => void): void {
    const start = writeHeaderBefore(buffer, HEADROOM_BYTES, OPCODE.binary, length, this.#role === 'client')
    this.#socket.write(buffer.subarray(start, HEADROOM_BYTES + length), done)
  }

  /** Says so to the other side, which then has a while to answer. */
  close(code: number = CLOSE_CODE.normal, reason = ''): void {
    if (this.#closing) return
    this.#sendClose(closePayload(code, reason))
    this.#cutLater()
  }

  /** Cuts the connection. */
  terminate(): void {
    this.#closing = true
    this.#socket.destroy()
  }

  #sendClose(payload: Buffer): void {
    this.#closing = true
    if (this.#socket.writable) this.#socket.write(controlFrame(OPCODE.close, payload, this.#role === 'client'))
  }

  #control(opcode: number, payload: Buffer): void {
    if (opcode === OPCODE.ping) {
      if (this.open && this.#socket.writableLength < MAX_UNREAD_BYTES)
        this.#socket.write(controlFrame(OPCODE.pong, payload, this.#role === 'client'))
    } else if (opcode === OPCODE.close) {
      this.#deaf = true
      this.#received = readClosePayload(payload)
      if (!this.#closing) this.#sendClose(payload.subarray(0, 2))
      this.#finish()
    }
  }

  /** All that was written still goes out, if it can. */
  #finish(): void {
    this.#closing = true
    this.#cutLater()
    this.#socket.end(() => this.#socket.destroy())
  }

  #cutLater(): void {
    const cut = setTimeout(() => this.#socket.destroy(), CLOSE_TIMEOUT_MS)
    this.#socket.once('close', () => clearTimeout(cut))
  }

  #end(): void {
    this.#closing = true
    const { code, reason } = this.#received ?? { code: CLOSE_CODE.abnormal, reason: '' }
    this.#user?.end({ code, reason, ...(this.#error && { error: this.#error }) })
  }
}

/**
 * Answers a request for an upgrade (§4.2).
 * @param refuse answers with this status and reason.
 * @returns undefined where it was refused, or the client is gone.
 */
export function acceptWebSocket(
  request: IncomingMessage,
  stream: Duplex,
  head: Buffer,
  refuse: (stream: Duplex, status: number, reason: string) => void,
): RawWebSocket | undefined {
  const { upgrade, 'sec-websocket-key': key = '', 'sec-websocket-version': version } = request.headers
  if (request.method !== 'GET' || upgrade?.toLowerCase() !== 'websocket' || !KEY.test(key)) {
    refuse(stream, 400, 'this is for WebSockets')
    return undefined
  }
  if (version !== '13') {
    refuse(stream, 426, 'WebSocket version 13')
    return undefined
  }
  if (!stream.readable || !stream.writable) return void stream.destroy()
  prepare(stream as Socket)
  stream.write(
    'HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n' +
      `Sec-WebSocket-Accept: ${acceptOf(key)}\r\n\r\n`,
  )
  return new RawWebSocket(stream, 'server', head)
}
const KEY = /^[+/0-9A-Za-z]{22}==$/

/**
 * Asks for an upgrade (§4.1).
 * @param connect to the URL's host; the connection is closed where there is no WebSocket.
 * @param times milliseconds until TCP is connected, and from then on until the answer: a relay to which all its agents come
 * back at once answers late, and who gives up makes it do the work again.
 * @throws Error whose message tells why there is none.
 */
export function upgradeWebSocket(
  url: URL,
  connect: (to: ConnectionOptions) => Socket,
  times: { readonly connectMs: number; readonly answerMs: number },
  signal: AbortSignal,
): Promise<RawWebSocket> {
  const { promise, resolve, reject } = Promise.withResolvers<RawWebSocket>()
  const key = randomBytes(16).toString('base64')
  const headers = {
    connection: 'Upgrade',
    upgrade: 'websocket',
    'sec-websocket-version': '13',
    'sec-websocket-key': key,
  }
  const dialled = connect(tlsTargetOf(url))
  // Without an agent there is none of https that would be kept for the socket's life.
  const call = https.request(url, { headers, createConnection: () => dialled })
  const within = (ms: number) => setTimeout(() => call.destroy(new Error(`no answer within ${ms / 1000} s`)), ms)
  let late = within(times.connectMs)
  dialled.once('connect', () => {
    clearTimeout(late)
    late = within(times.answerMs)
  })
  const stop = (): void => void call.destroy(new Error('not wanted any more'))
  const settle = (): void => {
    clearTimeout(late)
    signal.removeEventListener('abort', stop)
  }
  call.once('upgrade', (response, socket, head) => {
    settle()
    if (response.headers['sec-websocket-accept'] !== acceptOf(key)) {
      socket.destroy()
      return reject(new Error('the answer was no WebSocket'))
    }
    prepare(socket)
    resolve(new RawWebSocket(socket, 'client', head))
  })
  call.once('response', (response) => {
    settle()
    call.destroy()
    reject(new Error(`the relay answered ${response.statusCode} ${response.statusMessage ?? ''}`.trim()))
  })
  call.on('error', (error) => {
    settle()
    reject(error)
  })
  call.end()
  onAbort(signal, stop)
  return promise
}

function prepare(socket: Socket): void {
  socket.setTimeout(0)
  socket.setNoDelay(true)
}
