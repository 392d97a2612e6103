// kubectl port-forward, with many connections.

import type { Socket } from 'node:net'
import { bytesOf, check, reader, RUN_TIMEOUT_MS, stopper, type Case } from './session.ts'

const CONNECTIONS = 32
const CONNECTION_BYTES = 256 * 1024

export const PORT_FORWARD: readonly Case[] = [
  {
    name: 'port-forward',
    perProtocol: true,
    run: async (session) => {
      const args = ['port-forward', ...session.pod, `:${session.target.port}`]
      const child = session.start(...args)
      const stop = stopper(child)
      try {
        const seen = reader(child.stdout!, args, () => errors)
        let errors = ''
        child.stderr!.setEncoding('utf8').on('data', (chunk: string) => (errors += chunk))
        const [, port = ''] = await seen.until(/Forwarding from 127\.0\.0\.1:(\d+) /)
        const { connect } = session.kubectl
        const path = `/bytes?n=${CONNECTION_BYTES}`
        const bodies = await Promise.all(
          Array.from({ length: CONNECTIONS }, async () => bytesOf(await connect(Number(port)), path)),
        )
        check(
          bodies.every((bytes) => bytes === CONNECTION_BYTES),
          `bodies of ${[...new Set(bodies)].join(', ')} bytes instead of ${CONNECTION_BYTES}`,
        )
        check(
          (await answerToHalfClosed(await connect(Number(port)))).includes('"path":"/"'),
          'no answer to who half-closes',
        )
        return `${CONNECTIONS} connections of ${CONNECTION_BYTES >> 10} KiB at once, and one half-closed`
      } finally {
        await stop()
      }
    },
  },
]

/** Says all it has to say and closes its side; the answer must come all the same. */
async function answerToHalfClosed(socket: Socket): Promise<string> {
  socket.setTimeout(RUN_TIMEOUT_MS / 2)
  socket.on('timeout', () => socket.destroy(new Error('no answer to who half-closes')))
  socket.end('GET / HTTP/1.1\r\nHost: pod\r\nConnection: close\r\n\r\n')
  let text = ''
  for await (const chunk of socket as AsyncIterable<Buffer>) text += chunk.toString()
  return text
}
