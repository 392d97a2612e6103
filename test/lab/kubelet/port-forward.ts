// Port forwarding: for each connection at the client's end, a stream for what is wrong with it and one for its bytes,
// paired by the header requestID. The pod's end is a connection to its own loopback.

import type { Duplex } from 'node:stream'
import type { Socket } from 'node:net'
import type { KubeletPod } from './pods.ts'
import { SpdyConnection, type SpdyStream } from './spdy-connection.ts'

/** Over SPDY, and over SPDY inside a WebSocket. */
export const PORT_FORWARD_PROTOCOL = 'portforward.k8s.io'
export const TUNNELLED_PROTOCOL = `SPDY/3.1+${PORT_FORWARD_PROTOCOL}`

const CONNECT_TIMEOUT_MS = 10_000

export function servePortForward(transport: Duplex, { name, sandbox }: KubeletPod): void {
  const errors = new Map<string, SpdyStream>()
  const connection = new SpdyConnection(transport, (stream) => {
    const { streamtype, port, requestid = '' } = stream.headers
    if (streamtype === 'error') {
      errors.set(requestid, stream)
      stream.once('close', () => errors.delete(requestid))
      stream.resume()
      return
    }
    void forward(stream, Number(port), errors.get(requestid))
  })

  const forward = async (stream: SpdyStream, port: number, errorStream: SpdyStream | undefined): Promise<void> => {
    let target: Socket
    try {
      const within = AbortSignal.any([connection.signal, AbortSignal.timeout(CONNECT_TIMEOUT_MS)])
      target = await sandbox.connect(port, within)
    } catch (error) {
      errorStream?.end(
        `error forwarding port ${port} to pod ${name}: failed to connect to localhost:${port} inside its namespace: ${(error as Error).message}`,
      )
      return void stream.destroy()
    }
    target.setNoDelay(true)
    // Either end may close its direction; an error ends both.
    target.on('error', () => stream.destroy())
    stream.once('close', () => {
      if (!stream.readableEnded || !stream.writableFinished) target.destroy()
    })
    stream.pipe(target)
    target.pipe(stream)
    stream.once('close', () => errorStream?.end())
    target.once('close', () => errorStream?.end())
  }
}
