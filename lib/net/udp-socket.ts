// UDP sockets whose targets are addresses: bound with what fails told to who asked, and sending within the call.

import type { Socket, SocketOptions } from 'node:dgram'
import { once } from 'node:events'

type Answer = (error: null, address: string, family: number) => void

/** For `createSocket`: dgram's own lookup answers on the next tick, even for addresses, and so sends each packet a turn late. */
export const addressLookup = ((address: string, family: number, done: Answer) =>
  done(null, address, family)) as unknown as NonNullable<SocketOptions['lookup']>

/** Resolves when the socket is bound. @throws what bind() failed with; the socket is closed then. */
export const bindUdp = (socket: Socket, port: number, address?: string): Promise<void> =>
  listening(socket, () => socket.bind(port, address))

/** @param bind calls bind(), as it may. Else like `bindUdp`. */
export async function listening(socket: Socket, bind: () => void): Promise<void> {
  try {
    // Listens first: a socket whose lookup answers at once is bound before bind() returns.
    const bound = once(socket, 'listening')
    bind()
    await bound
  } catch (error) {
    socket.close()
    throw error
  }
}
