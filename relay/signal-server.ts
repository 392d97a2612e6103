// The sessions of gateways for signalling (signal.ts): WebSockets, and announcements on disk.

import { openAnnouncements } from '../lib/net/announcement-files.ts'
import { MAX_SIGNAL_BYTES, ProtocolError } from '../lib/wire/signal.ts'
import { Signalling, type SignallingOptions } from './signal.ts'
import { runSessions, type Session, type Sessions } from './websocket-server.ts'

export type SignalOptions = Omit<SignallingOptions<Session>, 'known' | 'save' | 'remove' | 'send'> & {
  readonly stateDir: string
  readonly heartbeatMs?: number
}

export type SignalServer = Pick<Signalling<Session>, 'tell' | 'forget'> & {
  readonly sessions: Sessions
  readonly closed: Promise<void>
}

/** A session that reads so slowly is cut; it gets the latest of everything when it comes back. */
const MAX_BUFFERED_BYTES = 8 * 1024 * 1024

export async function runSignalServer(options: SignalOptions, signal: AbortSignal): Promise<SignalServer> {
  const { stateDir, heartbeatMs, log } = options
  const files = openAnnouncements(stateDir, log)
  const send = ({ socket }: Session, frame: Buffer): void => {
    if (socket.bufferedAmount > MAX_BUFFERED_BYTES) socket.terminate()
    else socket.send(frame, { binary: false })
  }
  const { save, remove } = files
  const signalling = new Signalling<Session>({ ...options, known: await files.load(), save, remove, send })
  const sessions = runSessions(
    { kind: 'signal', maxPayloadBytes: MAX_SIGNAL_BYTES, log, ...(heartbeatMs && { heartbeatMs }) },
    {
      open: (session) => signalling.open(session, performance.now()),
      close: (session) => signalling.close(session),
      message: (session, data, isBinary) => {
        if (isBinary) throw new ProtocolError('binary frame on the signal session')
        signalling.message(session, data.toString('utf8'), performance.now())
      },
    },
    signal,
  )
  return {
    sessions,
    tell: (node, frame) => signalling.tell(node, frame),
    forget: (node) => signalling.forget(node),
    closed: sessions.closed.then(files.flushed),
  }
}
