// Binding a UDP socket, with what fails told to who asked.

import type { Socket } from 'node:dgram'
import { once } from 'node:events'

/** Resolves when the socket is bound. @throws what bind() failed with; the socket is closed then. */
export async function bindUdp(socket: Socket, port: number, address?: string): Promise<void> {
  try {
    // Listens first: a socket whose lookup answers at once is bound before bind() returns.
    const listening = once(socket, 'listening')
    socket.bind(port, address)
    await listening
  } catch (error) {
    socket.close()
    throw error
  }
}
