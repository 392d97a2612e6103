// One exchange of SCTP over raw sockets, where the kernel has no SCTP of its own: INIT, and INIT ACK with a cookie (RFC 9260
// §3.3). `answer NAME PORT` answers with its name and the address that it saw as cookie, in both families; `call ADDRESS PORT`
// prints the cookie, or the code of an error, or `timeout`.
//
//   source port 16 | destination port 16 | verification tag 32 | CRC32c 32, in the order of x86 | chunk
//   chunk: type 8, flags 8, length 16 | tag 32 | window 32 | streams 16, 16 | TSN 32 | parameters: type 16, length 16, value

import { spawnSync } from 'node:child_process'
import { spawn, type ChildProcess } from 'node:child_process'
import { once } from 'node:events'
import type * as Ffi from 'node:ffi'
import { constants } from 'node:os'
import { fileURLToPath } from 'node:url'
import { readAddress, writeAddress } from '../../lib/address.ts'
import type { Family } from '../../lib/cidr.ts'
import { loadFfi } from '../../lib/net/ffi.ts'

const AF: Readonly<Record<Family, number>> = { 4: 2, 6: 10 }
const ADDRESS_AT: Readonly<Record<Family, number>> = { 4: 4, 6: 8 }
const SOCK_RAW = 3
const IPPROTO_SCTP = 132
const SOL_SOCKET = 1
const SO_RCVTIMEO = 20
const TIMEOUT_MS = 700
const INIT = 1
const INIT_ACK = 2
const COOKIE = 7
const PORT = 40_001

const SIGNATURES = {
  socket: { return: 'int32', arguments: ['int32', 'int32', 'int32'] },
  connect: { return: 'int32', arguments: ['int32', 'buffer', 'uint32'] },
  setsockopt: { return: 'int32', arguments: ['int32', 'int32', 'int32', 'buffer', 'uint32'] },
  send: { return: 'int64', arguments: ['int32', 'buffer', 'uint64', 'int32'] },
  sendto: { return: 'int64', arguments: ['int32', 'buffer', 'uint64', 'int32', 'buffer', 'uint32'] },
  recvfrom: { return: 'int64', arguments: ['int32', 'buffer', 'uint64', 'int32', 'buffer', 'buffer'] },
  __errno_location: { return: 'pointer', arguments: [] },
} as const satisfies Ffi.FunctionDefinitions

const CRC = Uint32Array.from({ length: 256 }, (_, byte) => {
  let value = byte
  for (let i = 0; i < 8; i++) value = value & 1 ? (value >>> 1) ^ 0x82f63b78 : value >>> 1
  return value
})
const crc32c = (bytes: Uint8Array): number =>
  ~bytes.reduce((crc, byte) => (crc >>> 8) ^ CRC[(crc ^ byte) & 255]!, 0xffffffff) >>> 0

type Packet = {
  readonly from: number
  readonly to: number
  readonly type: number
  readonly tag: number
  readonly cookie: string
}

function encode({ from, to, type, cookie }: Packet, verificationTag: number): Buffer {
  const padded = (4 + cookie.length + 3) & ~3
  const bytes = Buffer.alloc(12 + 20 + (cookie === '' ? 0 : padded))
  bytes.writeUInt16BE(from, 0)
  bytes.writeUInt16BE(to, 2)
  bytes.writeUInt32BE(verificationTag, 4)
  bytes[12] = type
  bytes.writeUInt16BE(20 + (cookie === '' ? 0 : 4 + cookie.length), 14)
  bytes.writeUInt32BE(from, 16)
  bytes.writeUInt32BE(65_536, 20)
  bytes.writeUInt16BE(1, 24)
  bytes.writeUInt16BE(1, 26)
  bytes.writeUInt32BE(1, 28)
  if (cookie !== '') {
    bytes.writeUInt16BE(COOKIE, 32)
    bytes.writeUInt16BE(4 + cookie.length, 34)
    bytes.write(cookie, 36, 'latin1')
  }
  bytes.writeUInt32LE(crc32c(bytes), 8)
  return bytes
}

/** @returns undefined for what is broken. */
function decode(bytes: Buffer): Packet | undefined {
  if (bytes.length < 32) return undefined
  const unsigned = Buffer.from(bytes)
  unsigned.writeUInt32LE(0, 8)
  if (crc32c(unsigned) !== bytes.readUInt32LE(8)) return undefined
  const cookie = bytes.length < 36 ? '' : bytes.toString('latin1', 36, 32 + bytes.readUInt16BE(34))
  return {
    from: bytes.readUInt16BE(0),
    to: bytes.readUInt16BE(2),
    type: bytes[12]!,
    tag: bytes.readUInt32BE(16),
    cookie,
  }
}

function open(family: Family) {
  const ffi = loadFfi()
  const { functions } = ffi.dlopen(null, SIGNATURES)
  const location = functions.__errno_location()
  const errno = (): string => {
    const number = ffi.getInt32(location)
    return Object.entries(constants.errno).find(([, each]) => each === number)?.[0] ?? String(number)
  }
  const fd = functions.socket(AF[family], SOCK_RAW, IPPROTO_SCTP)
  if (fd < 0) throw new Error(`socket: ${errno()}`)
  const sockaddr = Buffer.alloc(family === 4 ? 16 : 28)
  sockaddr.writeUInt16LE(AF[family], 0)
  return { functions, errno, fd, sockaddr }
}

/** Of IPv4 a raw socket gives the header too. */
const payloadOf = (bytes: Buffer, family: Family) => (family === 4 ? bytes.subarray((bytes[0]! & 15) * 4) : bytes)

function callOnce(address: string, port: number): string {
  const family = address.includes(':') ? 6 : 4
  const { functions, errno, fd, sockaddr } = open(family)
  writeAddress(address, family, sockaddr, ADDRESS_AT[family])
  const timeout = Buffer.alloc(16)
  timeout.writeBigInt64LE(BigInt(TIMEOUT_MS * 1_000), 8)
  functions.setsockopt(fd, SOL_SOCKET, SO_RCVTIMEO, timeout, timeout.length)
  if (functions.connect(fd, sockaddr, sockaddr.length) < 0) return errno()
  const from = PORT + (process.pid % 20_000)
  const question = encode({ from, to: port, type: INIT, tag: from, cookie: '' }, 0)
  if (functions.send(fd, question, BigInt(question.length), 0) < 0n) return errno()
  for (const endsAt = performance.now() + TIMEOUT_MS; performance.now() < endsAt;) {
    const bytes = Buffer.alloc(2_048)
    const length = functions.recvfrom(fd, bytes, BigInt(bytes.length), 0, Buffer.alloc(28), Buffer.from([28, 0, 0, 0]))
    if (length < 0n) return errno() === 'EAGAIN' ? 'timeout' : errno()
    const answer = decode(payloadOf(bytes.subarray(0, Number(length)), family))
    if (answer?.type === INIT_ACK && answer.to === from && answer.from === port) return answer.cookie
  }
  return 'timeout'
}

function answer(family: Family, name: string, port: number): never {
  const { functions, fd, sockaddr } = open(family)
  process.stdout.write('listening\n')
  for (;;) {
    const bytes = Buffer.alloc(2_048)
    const size = Buffer.from([sockaddr.length, 0, 0, 0])
    const length = functions.recvfrom(fd, bytes, BigInt(bytes.length), 0, sockaddr, size)
    const question = length < 0n ? undefined : decode(payloadOf(bytes.subarray(0, Number(length)), family))
    if (question?.type !== INIT || question.to !== port) continue
    const caller = readAddress(sockaddr, family, ADDRESS_AT[family])
    const reply = encode(
      { from: port, to: question.from, type: INIT_ACK, tag: port, cookie: `${name} ${caller}` },
      question.tag,
    )
    // A raw socket of IPv6 takes no port.
    sockaddr.writeUInt16BE(0, 2)
    functions.sendto(fd, reply, BigInt(reply.length), 0, sockaddr, sockaddr.length)
  }
}

const inNamespace = (namespace: string | undefined, args: readonly string[]): readonly string[] => [
  ...(namespace === undefined ? [] : ['ip', 'netns', 'exec', namespace]),
  ...[process.execPath, fileURLToPath(import.meta.url), ...args],
]

/** Answers in both families; resolves once it does. */
export async function answerSctp(
  namespace: string | undefined,
  name: string,
  port: number,
): Promise<readonly ChildProcess[]> {
  const children = ([4, 6] as const).map((family) => {
    const [program, ...args] = inNamespace(namespace, ['answer', String(family), name, String(port)])
    return spawn(program!, args, { stdio: ['ignore', 'pipe', 'inherit'] })
  })
  await Promise.all(children.map((child) => once(child.stdout, 'data')))
  return children
}

/** @returns the answer, or the code of an error, or `timeout`. */
export function callSctp(namespace: string | undefined, address: string, port: number): string {
  const [program, ...args] = inNamespace(namespace, ['call', address, String(port)])
  return spawnSync(program!, args, { encoding: 'utf8', stdio: ['ignore', 'pipe', 'inherit'] }).stdout.trim()
}

if (import.meta.main) {
  const [verb, ...args] = process.argv.slice(2)
  if (verb === 'answer') answer(args[0] === '6' ? 6 : 4, args[1]!, Number(args[2]))
  else console.log(callOnce(args[0]!, Number(args[1])))
}
