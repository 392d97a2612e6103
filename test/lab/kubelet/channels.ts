// Remote command over WebSocket: v4.channel.k8s.io and v5.channel.k8s.io. The first byte of each binary message is its
// channel: 0 stdin, 1 stdout, 2 stderr, 3 a Status at the end, 4 resize; in v5, 255 and a channel closes that channel.

import { Readable, Writable } from 'node:stream'
import type { WebSocket } from 'ws'
import type { ClientStreams, CommandOptions } from './remote-command.ts'
import type { Size } from './process.ts'

export const CHANNEL_PROTOCOLS = ['v5.channel.k8s.io', 'v4.channel.k8s.io'] as const

const CHANNEL = { stdin: 0, stdout: 1, stderr: 2, error: 3, resize: 4, close: 255 } as const
const NORMAL = 1000

export function channelStreams(socket: WebSocket, options: CommandOptions): ClientStreams {
  const gone = new AbortController()
  const stdin = options.stdin ? new Readable({ read: () => socket.resume() }) : undefined
  const output = (channel: number) =>
    new Writable({
      write: (chunk: Buffer, _encoding, done) => {
        if (socket.readyState !== socket.OPEN) return done()
        socket.send(Buffer.concat([Buffer.from([channel]), chunk]), { binary: true }, () => done())
      },
    })
  let resize: (size: Size) => void = () => {}
  let finished = false
  socket.on('message', (data) => {
    if (finished) return
    const message = data as Buffer
    const body = message.subarray(1)
    switch (message[0]) {
      case CHANNEL.stdin:
        if (body.length > 0 && stdin?.push(body) === false) socket.pause()
        return
      case CHANNEL.resize: {
        const size = sizeIn(body)
        if (size !== undefined) resize(size)
        return
      }
      case CHANNEL.close:
        if (body[0] === CHANNEL.stdin) stdin?.push(null)
        return
      default:
    }
  })
  socket.on('error', () => {})
  socket.once('close', () => {
    stdin?.push(null)
    gone.abort()
  })
  const send = (channel: number, text: string): void =>
    socket.send(Buffer.concat([Buffer.from([channel]), Buffer.from(text)]), { binary: true })
  // Tells clients that the channels are open.
  send(options.stdout ? CHANNEL.stdout : CHANNEL.error, '')
  return {
    stdin,
    stdout: options.stdout ? output(CHANNEL.stdout) : undefined,
    stderr: options.stderr ? output(CHANNEL.stderr) : undefined,
    onResize: (listener) => (resize = listener),
    finish: (status) => {
      finished = true
      send(CHANNEL.error, JSON.stringify(status))
      socket.close(NORMAL)
      socket.resume()
    },
    signal: gone.signal,
  }
}

export function sizeIn(body: Buffer): Size | undefined {
  try {
    const { Width: width, Height: height } = JSON.parse(body.toString()) as { Width?: unknown; Height?: unknown }
    return typeof width === 'number' && typeof height === 'number' ? { width, height } : undefined
  } catch {
    return undefined
  }
}
