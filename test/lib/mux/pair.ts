// Two sessions that talk to each other in memory, and users of their streams.

import { MuxSession } from '../../../lib/mux/session.ts'
import type { MuxStream } from '../../../lib/mux/stream.ts'
import { MAX_MESSAGE_BYTES } from '../../../lib/wire/mux.ts'

/** The next message that a session would send. */
export function pull(session: MuxSession): Buffer | undefined {
  const target = Buffer.alloc(3 + MAX_MESSAGE_BYTES)
  const length = session.pull(target, 3)
  return length === 0 ? undefined : target.subarray(3, 3 + length)
}

/** A user of a stream that notes what it is told; it takes data only while `hungry`. */
export class User {
  readonly stream: MuxStream
  readonly told: string[] = []
  readonly got: Buffer[] = []
  hungry = true
  constructor(stream: MuxStream) {
    this.stream = stream
    stream.use({
      opened: () => void this.told.push('opened'),
      waits: () => {
        if (this.hungry) this.eat()
      },
      reset: (reason, text) => void this.told.push(`${reason}: ${text}`),
    })
  }
  get text(): string {
    return Buffer.concat(this.got).toString()
  }
  get bytes(): number {
    return this.got.reduce((sum, { length }) => sum + length, 0)
  }
  eat(): void {
    this.hungry = true
    let data = this.stream.read()
    for (; data; data = this.stream.read()) this.got.push(data)
    if (data === null && this.told.at(-1) !== 'ended') this.told.push('ended')
  }
  /** Writes so many bytes in pieces, the next when the last is done. @returns how many were taken so far. */
  pour(total: number, piece = 64 * 1024): { sent: number } {
    const progress = { sent: 0 }
    const next = (): void => {
      if (progress.sent >= total) return
      this.stream.write(Buffer.alloc(Math.min(piece, total - progress.sent), 1), () => {
        progress.sent += piece
        next()
      })
    }
    next()
    return progress
  }
}

/** Both sides, greeted. */
export function create(nowMs = () => 0) {
  const told: string[] = []
  const accepted: User[] = []
  const side = (name: string) => ({
    ready: () => {},
    greeted: (text: string) => void told.push(`${name} greeted ${text}`),
    goAway: (reason: string) => void told.push(`${name} goaway ${reason}`),
    pong: (token: Buffer) => void told.push(`${name} pong ${token.toString('hex')}`),
    idle: () => void told.push(`${name} idle`),
  })
  const relay = new MuxSession('opener', { ...side('relay'), opened: () => {} })
  const agent = new MuxSession('acceptor', {
    ...side('agent'),
    opened: (stream) => void accepted.push(new User(stream)),
  })
  /** Carries messages until neither has any. @returns bytes carried. */
  const carry = (rounds = Infinity): number => {
    let bytes = 0
    for (let round = 0; round < rounds; round++) {
      const [down, up] = [pull(relay), pull(agent)]
      if (down === undefined && up === undefined) break
      if (down) agent.receive(down, true, nowMs())
      if (up) relay.receive(up, true, nowMs())
      bytes += (down?.length ?? 0) + (up?.length ?? 0)
    }
    return bytes
  }
  /** Carries whole flights, as on a long path. @returns how many there were. */
  const fly = (): number => {
    const flight = (from: MuxSession): Buffer[] => {
      const messages = []
      for (let message = pull(from); message !== undefined; message = pull(from)) messages.push(message)
      return messages
    }
    for (let flights = 0; ; flights++) {
      const [down, up] = [flight(relay), flight(agent)]
      if (down.length + up.length === 0) return flights
      for (const message of down) agent.receive(message, true, nowMs())
      for (const message of up) relay.receive(message, true, nowMs())
    }
  }
  const open = (): [User, User] => {
    const stream = new User(relay.open('edge-7', 10250)!)
    carry()
    accepted.at(-1)!.stream.accept()
    carry()
    return [stream, accepted.at(-1)!]
  }
  agent.greet('hello')
  carry()
  relay.greet('welcome')
  carry()
  return { relay, agent, accepted, told, carry, fly, open }
}
