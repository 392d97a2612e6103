// A UDP socket that answers datagrams: in batches where that can be had (datagram-batch.ts), else one by one. Answers come
// at once or later.

import { createSocket } from 'node:dgram'
import { familyOf } from '../cidr.ts'
import { BATCH_ANSWER_BYTES, senderText, type DatagramBatch, type Sender } from './datagram-batch.ts'
import { addressLookup, listening } from './udp-socket.ts'

export type DatagramAnswersOptions = {
  readonly address: string
  readonly port: number
  readonly receiveBytes: number
  /**
   * Must not throw; what it returns must not reject. @param sender in text, for a log.
   * @returns at most BATCH_ANSWER_BYTES, longer ones may be lost; undefined for no answer.
   */
  readonly answer: (message: Buffer, sender: () => string) => Buffer | undefined | Promise<Buffer | undefined>
  /** Errors once it listens, such as a client's unreachable port. */
  readonly onError: (err: Error) => void
}
export type DatagramAnswers = { readonly close: () => void }

/**
 * Resolves when it listens.
 * @param batch undefined for one datagram at a time.
 * @throws Error of node:dgram with its code, such as EADDRINUSE.
 */
export async function openDatagramAnswers(
  options: DatagramAnswersOptions,
  batch: DatagramBatch | undefined,
): Promise<DatagramAnswers> {
  const { address, port, receiveBytes, answer } = options
  const family = familyOf(address) ?? 4
  const fd = batch?.bind(address, family, port)
  const socket = createSocket({
    type: family === 4 ? 'udp4' : 'udp6',
    recvBufferSize: receiveBytes,
    lookup: addressLookup,
  })
  let open = true

  /** The first of those that wait; the rest is read with it. */
  socket.on('message', (bytes, from) => {
    // Any client can forge such a packet, and Node throws where it is answered.
    if (from.port !== 0) {
      const answered = answer(bytes, () => from.address)
      const send = (message: Buffer | undefined): void => {
        if (message !== undefined && open) socket.send(message, from.port, from.address)
      }
      if (answered instanceof Promise) void answered.then(send)
      else send(answered)
    }
    if (batch !== undefined && fd !== undefined) answerBatch(batch, fd)
  })

  const answerBatch = (batch: DatagramBatch, fd: number): void => {
    batch.receive(fd, (bytes, sender) => {
      const answered = answer(Buffer.from(bytes), () => senderText(sender))
      if (answered === undefined) return
      if (answered instanceof Promise) {
        const target = Uint8Array.from(sender)
        void answered.then((message) => message !== undefined && open && sendLater(batch, fd, message, target))
      } else if (answered.length <= BATCH_ANSWER_BYTES) batch.put(fd, answered, sender)
    })
    batch.flush(fd)
  }

  await listening(socket, () => (fd === undefined ? socket.bind(port, address) : socket.bind({ fd })))
  socket.on('error', options.onError)
  return {
    close: () => {
      // The number of a closed socket may soon be another's.
      open = false
      socket.close()
    },
  }
}

function sendLater(batch: DatagramBatch, fd: number, message: Buffer, target: Sender): void {
  if (message.length > BATCH_ANSWER_BYTES) return
  batch.put(fd, message, target)
  batch.flush(fd)
}
