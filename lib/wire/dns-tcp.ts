// DNS over TCP: each message has its length before it, in two bytes (RFC 1035 §4.2.2).

export function framed(message: Uint8Array): Buffer {
  return Buffer.concat([Buffer.from([message.length >> 8, message.length & 0xff]), message])
}

/** The first message of what was received, and what comes after it; undefined until it is all there. */
export function firstMessage(received: Buffer): { readonly message: Buffer; readonly rest: Buffer } | undefined {
  if (received.length < 2) return undefined
  const end = 2 + received.readUInt16BE(0)
  return received.length < end ? undefined : { message: received.subarray(2, end), rest: received.subarray(end) }
}
