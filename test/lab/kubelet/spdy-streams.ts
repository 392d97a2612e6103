// Remote command over SPDY: the client opens a stream each for stdin, stdout, stderr, resize and the Status at the end,
// named by their header streamType.

import type { Duplex } from 'node:stream'
import { setTimeout as sleep } from 'node:timers/promises'
import { sizeIn } from './channels.ts'
import type { Size } from './process.ts'
import type { ClientStreams, CommandOptions } from './remote-command.ts'
import { SpdyConnection, type SpdyStream } from './spdy-connection.ts'

/** In the order of preference; in all of them the end is a Status, and resize came with the third. */
export const SPDY_PROTOCOLS = ['v4.channel.k8s.io', 'v3.channel.k8s.io'] as const

/** As the kubelet's. */
const STREAMS_WITHIN_MS = 30_000

/** @returns undefined when the client did not open all streams in time. */
export async function spdyStreams(transport: Duplex, options: CommandOptions): Promise<ClientStreams | undefined> {
  const streams = new Map<string, SpdyStream>()
  const complete = Promise.withResolvers<void>()
  const names = [
    'error',
    ...(options.stdin ? ['stdin'] : []),
    ...(options.stdout ? ['stdout'] : []),
    ...(options.stderr ? ['stderr'] : []),
    ...(options.tty ? ['resize'] : []),
  ]
  const connection = new SpdyConnection(transport, (stream) => {
    streams.set(stream.headers['streamtype'] ?? '', stream)
    if (names.every((name) => streams.has(name))) complete.resolve()
  })
  const given = new AbortController()
  const within = AbortSignal.any([given.signal, connection.signal])
  await Promise.race([complete.promise, sleep(STREAMS_WITHIN_MS, undefined, { signal: within }).catch(() => {})])
  given.abort()
  if (connection.signal.aborted || !names.every((name) => streams.has(name))) {
    connection.close()
    return undefined
  }
  const { resize } = Object.fromEntries(streams)
  let listener: (size: Size) => void = () => {}
  // Sizes are JSON values one after the other, with a newline after each.
  let text = ''
  resize?.on('data', (chunk: Buffer) => {
    const lines = (text + chunk.toString()).split('\n')
    text = lines.pop()!
    for (const line of lines) {
      const size = sizeIn(Buffer.from(line))
      if (size !== undefined) listener(size)
    }
  })
  return {
    stdin: streams.get('stdin'),
    stdout: streams.get('stdout'),
    stderr: streams.get('stderr'),
    onResize: (next) => (listener = next),
    finish: (status) => {
      streams.get('error')!.end(JSON.stringify(status))
      for (const name of ['stdout', 'stderr']) streams.get(name)?.end()
      connection.close()
    },
    signal: connection.signal,
  }
}
