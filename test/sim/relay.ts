// A relay in memory: the product's signalling over sessions that take time, and packets between gateways that both have
// a session. It counts what passes.

import type { SignedAnnouncement } from '../../lib/wire/signal.ts'
import { Signalling } from '../../relay/signal.ts'
import { createLog } from '../../lib/log.ts'
import type { Clock } from './clock.ts'

export type Client = {
  readonly node: string
  /** One way. */
  readonly latencyMs: number
  /** The session is up. */
  readonly onOpen: () => void
  readonly onClose: () => void
  readonly onFrame: (text: string) => void
}
type SimSession = {
  readonly node: string
  readonly address: string
  readonly client: Client
  open: boolean
  up: boolean
}

const OWNER = 'relay'

export class SimRelay {
  /** What the relay sent to gateways and got from them. */
  sent = { messages: 0, bytes: 0 }
  received = { messages: 0, bytes: 0 }
  /** Sessions that the relay ended, and why. */
  readonly ended: string[] = []
  readonly disk = new Map<string, SignedAnnouncement>()
  readonly #clock: Clock
  readonly #clients = new Map<string, Client>()
  readonly #sessions = new Map<string, SimSession>()
  #signalling: Signalling<SimSession>

  constructor(clock: Clock) {
    this.#clock = clock
    this.#signalling = this.#start()
  }

  get sessions(): number {
    return this.#sessions.size
  }

  connect(client: Client): void {
    this.#clients.set(client.node, client)
    this.#open(client)
  }

  disconnect(node: string): void {
    this.#clients.delete(node)
    this.#close(node)
  }

  /** Everybody comes back within a second, after the process has started anew from its disk. */
  restart(): void {
    this.#signalling = this.#start()
    for (const session of this.#sessions.values()) {
      session.open = false
      this.#clock.at(session.node, session.client.latencyMs, session.client.onClose)
    }
    this.#sessions.clear()
    for (const client of this.#clients.values())
      this.#clock.at(OWNER, 200 + 800 * this.#clock.random(), () => this.#open(client))
  }

  /** @returns false where there is no session. */
  receive(node: string, text: string): boolean {
    const session = this.#sessions.get(node)
    if (session?.up !== true) return false
    this.#clock.at(OWNER, session.client.latencyMs, () => {
      if (!session.open) return
      count(this.received, text)
      try {
        this.#signalling.message(session, text, this.#clock.nowMs)
      } catch (error) {
        this.ended.push(`${node}: ${(error as Error).message}`)
        this.#close(node)
        this.#clock.at(OWNER, 1_000, () => this.#open(session.client))
      }
    })
    return true
  }

  isConnected(node: string): boolean {
    return this.#sessions.has(node)
  }

  #start(): Signalling<SimSession> {
    return new Signalling<SimSession>({
      relay: 'relay-1',
      mayReach: () => true,
      known: this.disk,
      save: (node, announcement) => void this.disk.set(node, announcement),
      remove: (node) => void this.disk.delete(node),
      send: (session, frame) => {
        const text = frame.toString()
        count(this.sent, text)
        this.#clock.at(session.node, session.client.latencyMs, () => {
          if (session.open) session.client.onFrame(text)
        })
      },
      log: createLog('sim', 'silent'),
    })
  }

  #open(client: Client): void {
    if (this.#clients.get(client.node) !== client || this.#sessions.has(client.node)) return
    const session = { node: client.node, address: '198.51.100.1', client, open: true, up: false }
    this.#sessions.set(client.node, session)
    this.#signalling.open(session, this.#clock.nowMs)
    this.#clock.at(client.node, client.latencyMs, () => {
      if (!session.open) return
      session.up = true
      client.onOpen()
    })
  }

  #close(node: string): void {
    const session = this.#sessions.get(node)
    if (session === undefined) return
    session.open = false
    this.#sessions.delete(node)
    this.#signalling.close(session)
    this.#clock.at(node, session.client.latencyMs, session.client.onClose)
  }
}

function count(counts: { messages: number; bytes: number }, text: string): void {
  counts.messages++
  counts.bytes += text.length
}
