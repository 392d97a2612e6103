// Binding a UDP socket, with what fails told to who asked.

import type { Socket } from 'node:dgram'
import { once } from 'node:events'

/** Resolves when the socket is bound. @throws what bind() failed with; the socket is closed then. */
export async function bindUdp(socket: Socket, port: number, address?: string): Promise<void> {
  try {
    socket.bind(port, address)
    await once(socket, 'listening')
  } catch (error) {
    socket.close()
    throw error
  }
}
