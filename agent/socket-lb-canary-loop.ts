// The canary: a connection to an address that nobody has, which arrives only where the programs run, the maps are right
// and the clocks of agent and programs are one. It comes back with the address that was called, or it has failed.

import { randomBytes } from 'node:crypto'
import { connect, createServer, type AddressInfo, type Server } from 'node:net'
import type { Family } from '../lib/cidr.ts'
import { onAbort } from '../lib/net/lifetime.ts'
import { CANARY_ADDRESSES, CANARY_PORT } from '../lib/owned.ts'
import type { Entry } from './socket-lb.ts'
import { FLAG_CANARY } from './socket-lb-records.ts'

export type Canary = {
  /** What the maps must hold for it. */
  readonly entries: readonly Entry[]
  /** @returns why it did not arrive; undefined if it did, in each family that this node has. */
  readonly fly: () => Promise<string | undefined>
}

const TIMEOUT_MS = 1_000
const TOKEN_BYTES = 16
const LOOPBACK: Readonly<Record<Family, string>> = { 4: '127.0.0.1', 6: '::1' }
/** Of IPv6 that is switched off. */
const NO_FAMILY: readonly unknown[] = ['EADDRNOTAVAIL', 'EAFNOSUPPORT']

/** Listens on loopback until the signal aborts. @throws where not even 127.0.0.1 can be listened on. */
export async function openCanary(signal: AbortSignal): Promise<Canary> {
  const token = randomBytes(TOKEN_BYTES)
  const open = async (family: Family): Promise<{ family: Family; port: number } | undefined> => {
    const server = createServer((socket) => {
      socket.on('error', () => undefined)
      socket.end(token)
    })
    server.unref()
    try {
      await listen(server, LOOPBACK[family])
    } catch (error) {
      if (family === 6 && NO_FAMILY.includes((error as NodeJS.ErrnoException).code)) return undefined
      throw error
    }
    server.on('error', () => undefined)
    const { port } = server.address() as AddressInfo
    onAbort(signal, () => server.close())
    return { family, port }
  }
  const listening = [await open(4), await open(6)].filter((open) => open !== undefined)
  return {
    entries: listening.map(({ family, port }) => ({
      service: '',
      place: { family, address: CANARY_ADDRESSES[family], port: CANARY_PORT },
      flags: FLAG_CANARY,
      targets: [{ address: LOOPBACK[family], port, node: undefined, weight: 1 }],
    })),
    fly: async () => {
      const flights = await Promise.all(listening.map(({ family }) => call(CANARY_ADDRESSES[family], token)))
      return flights.find((problem) => problem !== undefined)
    },
  }
}

const listen = (server: Server, host: string): Promise<void> =>
  new Promise((resolve, reject) => server.once('error', reject).listen(0, host, resolve))

/** @returns why no token, or not from that address. */
function call(address: string, token: Buffer): Promise<string | undefined> {
  const what = `a call to the canary ${address}`
  return new Promise((resolve) => {
    const socket = connect(CANARY_PORT, address)
    let received = Buffer.alloc(0)
    const finish = (problem?: string): void => {
      clearTimeout(timer)
      // Nothing waits in TIME_WAIT.
      socket.resetAndDestroy()
      resolve(problem)
    }
    const timer = setTimeout(() => finish(`${what} does not arrive`), TIMEOUT_MS)
    socket.on('error', ({ code, message }: NodeJS.ErrnoException) => finish(`${what} fails: ${code ?? message}`))
    socket.on('close', () => finish(`${what} ends early`))
    socket.on('data', (bytes: Buffer) => {
      received = Buffer.concat([received, bytes])
      if (received.length < token.length) return
      if (!received.equals(token)) finish(`${what} is answered by somebody else`)
      else if (socket.remoteAddress !== address) finish(`${what} seems to come from ${socket.remoteAddress}`)
      else finish()
    })
  })
}
