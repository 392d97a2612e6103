// The name that a TLS client asks for (SNI, RFC 6066 §3), read from its ClientHello (RFC 8446 §4.1.2) as far as it has
// come: a hello may span TCP segments, and TLS records too.

export type HelloName =
  /** More bytes are needed. */
  | { readonly kind: 'partial' }
  /** @param name in lower case; undefined where the client gives none, as for an address. */
  | { readonly kind: 'hello'; readonly name: string | undefined }
  | { readonly kind: 'no hello'; readonly reason: string }

/** Post-quantum key shares and a session ticket take some 4 KiB. */
export const MAX_HELLO_BYTES = 16 * 1024

const HANDSHAKE_RECORD = 22
const CLIENT_HELLO = 1
const RECORD_HEADER_BYTES = 5
const MAX_RECORD_BYTES = 16 * 1024
const SERVER_NAME = 0
const HOST_NAME = 0

/** @param bytes all that came so far. */
export function nameInHello(bytes: Buffer): HelloName {
  const hello = handshakeIn(bytes)
  if (!Buffer.isBuffer(hello)) return hello
  try {
    return { kind: 'hello', name: nameOf(hello) }
  } catch (error) {
    if (error instanceof RangeError) return { kind: 'no hello', reason: 'its ClientHello is cut off inside' }
    throw error
  }
}

/** The body of the handshake message that the records carry. */
function handshakeIn(bytes: Buffer): Buffer | HelloName {
  const parts: Buffer[] = []
  let length = 0
  for (let at = 0; at < bytes.length;) {
    if (bytes[at] !== HANDSHAKE_RECORD) return { kind: 'no hello', reason: 'it speaks no TLS' }
    if (bytes.length - at < RECORD_HEADER_BYTES) break
    const size = bytes.readUInt16BE(at + 3)
    if (bytes[at + 1] !== 3 || size === 0 || size > MAX_RECORD_BYTES)
      return { kind: 'no hello', reason: 'it speaks no TLS' }
    const part = bytes.subarray(at + RECORD_HEADER_BYTES, at + RECORD_HEADER_BYTES + size)
    parts.push(part)
    length += part.length
    at += RECORD_HEADER_BYTES + size
    if (length === 0) break
    const whole = parts.length === 1 ? part : Buffer.concat(parts)
    if (whole[0] !== CLIENT_HELLO) return { kind: 'no hello', reason: 'its first message is no ClientHello' }
    if (length < 4) continue
    const end = 4 + whole.readUIntBE(1, 3)
    if (end > MAX_HELLO_BYTES) return { kind: 'no hello', reason: `its ClientHello has ${end} bytes` }
    if (length >= end) return whole.subarray(4, end)
  }
  return bytes.length > MAX_HELLO_BYTES
    ? { kind: 'no hello', reason: `its ClientHello has over ${MAX_HELLO_BYTES} bytes` }
    : { kind: 'partial' }
}

/** @throws RangeError where a length leads beyond the end, or not to it. */
function nameOf(hello: Buffer): string | undefined {
  let at = 2 + 32
  at += 1 + hello.readUInt8(at)
  at += 2 + hello.readUInt16BE(at)
  at += 1 + hello.readUInt8(at)
  // Without extensions it ends here, as it did before TLS 1.0 had any.
  if (at === hello.length) return undefined
  const end = at + 2 + hello.readUInt16BE(at)
  at += 2
  let name: string | undefined
  while (at < end) {
    const next = at + 4 + hello.readUInt16BE(at + 2)
    if (hello.readUInt16BE(at) === SERVER_NAME) name = hostNameIn(hello.subarray(at + 4, next))
    at = next
  }
  if (at !== end || end !== hello.length) throw new RangeError('extensions that do not end where the hello does')
  return name
}

/** @param list RFC 6066 §3: of one name, since there is one type of them. */
function hostNameIn(list: Buffer): string {
  const end = 5 + list.readUInt16BE(3)
  if (list.readUInt8(2) !== HOST_NAME || end > list.length) throw new RangeError('no host name')
  return list.toString('latin1', 5, end).toLowerCase()
}
