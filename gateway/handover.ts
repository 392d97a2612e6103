// Messages between gateways about a hand-over (gateway/handover-loop.ts), on the port of the echoes, inside the WireGuard
// devices: who sends them is proven.
//
//   u32 magic "FMHO" | u8 version 1 | u8 kind | u8 flags (1: a reply) | u8 0 | u32 id | u16 port
//   u8 length, successor's node name

/** What the leaving gateway asks of one of another pool; the answer is the same, as a reply. */
export const HANDOVER_KINDS = [
  /** To be heard on fm-leave too. */
  'leave',
  /** Sent through fm-leave itself: whether it carries. */
  'try',
  /** Nothing comes behind this but through fm-leave: packets for the pool may go to the successor. */
  'left',
] as const
export type HandoverKind = (typeof HANDOVER_KINDS)[number]

export type HandoverMessage = {
  readonly kind: HandoverKind
  readonly reply: boolean
  /** Of the hand-over, chosen by the leaving gateway. */
  readonly id: number
  readonly successor: string
  /** In a reply: of the sender's fm-leave; 0 while what was asked for is still to be done. */
  readonly port: number
}

const MAGIC = 0x464d484f
const HEADER_BYTES = 15
const REPLY = 1
const MAX_NAME_BYTES = 253

/** @throws RangeError for a name that no node can have. */
export function encodeHandover({ kind, reply, id, successor, port }: HandoverMessage): Buffer {
  const name = Buffer.from(successor)
  if (name.length > MAX_NAME_BYTES) throw new RangeError(`name over ${MAX_NAME_BYTES} bytes`)
  const head = Buffer.alloc(HEADER_BYTES)
  head.writeUInt32BE(MAGIC, 0)
  head[4] = 1
  head[5] = HANDOVER_KINDS.indexOf(kind) + 1
  head[6] = reply ? REPLY : 0
  head.writeUInt32BE(id, 8)
  head.writeUInt16BE(port, 12)
  head[14] = name.length
  return Buffer.concat([head, name])
}

/** @returns undefined for what is malformed, or of a kind or version that is not known here. */
export function decodeHandover(datagram: Buffer): HandoverMessage | undefined {
  if (datagram.length < HEADER_BYTES || datagram.readUInt32BE(0) !== MAGIC || datagram[4] !== 1) return undefined
  const kind = HANDOVER_KINDS[datagram[5]! - 1]
  const end = HEADER_BYTES + datagram[14]!
  if (kind === undefined || datagram[14]! > MAX_NAME_BYTES || end > datagram.length) return undefined
  return {
    kind,
    reply: (datagram[6]! & REPLY) !== 0,
    id: datagram.readUInt32BE(8),
    port: datagram.readUInt16BE(12),
    successor: datagram.toString('utf8', HEADER_BYTES, end),
  }
}
