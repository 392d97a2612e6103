// A daemon's voice and ears on its pool's LAN: signs what it says with the node's key, and gives back what members say,
// proven. Both daemons of a node have one, on ports of their own.

import { createSocket } from 'node:dgram'
import { createPrivateKey, X509Certificate } from 'node:crypto'
import { LanPeers, type HeardMessage, type IsMember } from '../lan.ts'
import type { Log } from '../log.ts'
import { encodeLan, type LanMessage, type LanSource } from '../wire/lan.ts'
import type { NodeIdentity } from './identity.ts'
import { openLanSocket } from './lan-socket.ts'
import { addressLookup } from './udp-socket.ts'

export type LanChannel = {
  /** @returns the next datagram with our certificate, for who may not know it, and without; undefined without a key. */
  readonly encode: (message: LanMessage) => { readonly whole: Buffer; readonly bare: Buffer } | undefined
  /** A datagram that cannot be sent counts as lost. */
  readonly send: (datagram: Buffer, port: number, address: string) => void
  /**
   * Sends it from a socket of its own, for whose answer see `onMessage`.
   * @param onRefused nobody listens there, says the kernel of that node.
   */
  readonly ask: (datagram: Buffer, port: number, address: string, onRefused: () => void) => void
  readonly problems: () => readonly string[]
}

export type LanChannelOptions = {
  /** May change its fields at any time: what is said next is signed by the new key. */
  readonly identity: Pick<NodeIdentity, 'certificatePem' | 'keyPem' | 'caPem'>
  /** Ourselves. */
  readonly node?: string
  readonly source: LanSource
  readonly port: number
  /** Counts starts; see lib/wire/lan.ts. */
  readonly boot: number
  readonly isMember: IsMember
  /** Our own pool as the objects have it: who is none of it, and speaks as if, is logged while it is known. */
  readonly ownPool?: () => string | undefined
  /** @param answer sends to where it came from. */
  readonly onMessage: (said: HeardMessage, answer: (datagram: Buffer) => void) => void
  readonly log: Log
}

const ANSWER_MS = 1_000
/** Questions under way. */
const MAX_ASKING = 128

const NO_CA =
  'the CA certificate in the state folder cannot be read, so nobody on the LAN is believed; run fulmar join --force'
const NO_KEY =
  'the certificate and key in the state folder cannot be read, so nobody on the LAN believes us; run fulmar join --force'

export function openLanChannel(options: LanChannelOptions, signal: AbortSignal): LanChannel {
  const { identity, boot, log } = options
  const problems: string[] = []
  const readable = <T>(problem: string, read: () => T): T | undefined => {
    try {
      return read()
    } catch (err) {
      log.error({ err }, problem)
      problems.push(problem)
      return undefined
    }
  }
  const onStranger = (node: string, message: LanMessage): void => {
    const pool = options.ownPool?.()
    if (pool === undefined || node === options.node) return
    const reason = `by the objects, ${node} is not one that says so in pool ${pool}; it says pool ${message.pool}`
    log.warn({ node, kind: message.kind, reason }, 'a claim on the LAN was refused')
  }
  // Without a CA nobody is believed, and the daemon does all that it can without the LAN.
  const peers = readable(NO_CA, () => new LanPeers(new X509Certificate(identity.caPem), onStranger))
  const readOwn = () => ({
    certificate: new X509Certificate(identity.certificatePem),
    key: createPrivateKey(identity.keyPem),
  })
  let own = readable(NO_KEY, readOwn)
  let ownPem = identity.certificatePem
  const voice = (): typeof own => {
    if (ownPem === identity.certificatePem) return own
    ownPem = identity.certificatePem
    // What cannot be read now says no more than what could be before.
    return (own = readable(NO_KEY, readOwn) ?? own)
  }
  // Where the disk refuses a new boot number, the clock makes up for it, if it is right.
  let sequence = Date.now()
  let asking = 0

  const receive = (datagram: Buffer, answer: (datagram: Buffer) => void): void => {
    const said = peers?.receive(datagram, options.isMember, performance.now())
    if (said !== undefined && !signal.aborted) options.onMessage(said, answer)
  }
  const socket = openLanSocket({ port: options.port, onMessage: receive, log }, signal)

  return {
    encode: (message) => {
      const speaker = voice()
      return speaker && encodeLan(message, { boot, sequence: sequence++ }, speaker)
    },
    send: socket.send,
    ask: (datagram, port, address, onRefused) => {
      if (signal.aborted || asking >= MAX_ASKING) return
      asking++
      const type = address.includes(':') ? 'udp6' : 'udp4'
      const question = createSocket({ type, lookup: addressLookup })
      const ended = AbortSignal.any([signal, AbortSignal.timeout(ANSWER_MS)])
      const end = (): void => {
        ended.removeEventListener('abort', end)
        asking--
        question.removeAllListeners().on('error', () => undefined)
        question.close()
      }
      ended.addEventListener('abort', end)
      // Only a connected socket hears that nobody listens.
      question.on('connect', () => question.send(datagram, (error) => error && question.emit('error', error)))
      question.on('error', ({ code }: NodeJS.ErrnoException) => {
        end()
        if (code === 'ECONNREFUSED') onRefused()
      })
      question.on('message', (answer) => {
        end()
        receive(answer, () => undefined)
      })
      question.connect(port, address)
    },
    problems: () => [...problems, socket.problem() ?? []].flat(),
  }
}
