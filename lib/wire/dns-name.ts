// Names in DNS messages: labels with their lengths, the last of them empty, or a pointer to where the rest stands (RFC 1035
// §4.1.4).

/** With its lengths and the empty label at its end. */
const NAME_BYTES_MAX = 255
const LABEL_BYTES_MAX = 63
const POINTER = 0xc0
/** More jumps than this in one name are a loop: each must lead further back. */
const JUMPS_MAX = 64

/**
 * The name of a question, which has nothing before it to point to; undefined for whatever is none. Bytes that are not
 * printable, dots and backslashes within a label are written as `\DDD`.
 */
export function readName(message: Buffer, start: number): { readonly name: string; readonly end: number } | undefined {
  let offset = start
  let name = ''
  for (;;) {
    const length = message[offset]
    if (length === undefined || length > LABEL_BYTES_MAX || offset + 1 + length > message.length) return undefined
    if (length === 0) break
    name += name === '' ? label(message, offset + 1, length) : `.${label(message, offset + 1, length)}`
    offset += 1 + length
    if (offset + 1 - start > NAME_BYTES_MAX) return undefined
  }
  return { name: name === '' ? '.' : name, end: offset + 1 }
}

function label(message: Buffer, start: number, length: number): string {
  const end = start + length
  for (let i = start; i < end; i++) if (!isPlain(message[i]!)) return escaped(message.subarray(start, end))
  return message.toString('latin1', start, end)
}

const isPlain = (byte: number) => byte > 0x20 && byte < 0x7f && byte !== 0x2e && byte !== 0x5c
const escaped = (bytes: Uint8Array): string =>
  [...bytes].map((byte) => (isPlain(byte) ? String.fromCharCode(byte) : `\\${String(byte).padStart(3, '0')}`)).join('')

/** Whether `writeName` takes it: labels of letters, digits, dashes and their like. */
export function isName(name: string): boolean {
  return (
    name === '.' ||
    (name.length + 2 <= NAME_BYTES_MAX &&
      name.split('.').every((part) => /^[\x21-\x2d\x2f-\x5b\x5d-\x7e]{1,63}$/.test(part)))
  )
}

/** @param name without a dot at its end. @returns the offset behind it. @throws RangeError for what is no name. */
export function writeName(name: string, target: Buffer, start: number): number {
  if (name.length + 2 > NAME_BYTES_MAX) throw new RangeError(`${name.slice(0, 80)}… is too long for a name`)
  if (name === '.') {
    target[start] = 0
    return start + 1
  }
  let lengthAt = start
  let offset = start + 1
  for (let i = 0; i <= name.length; i++) {
    const code = i === name.length ? DOT : name.charCodeAt(i)
    if (code === DOT) {
      const length = offset - lengthAt - 1
      if (length === 0 || length > LABEL_BYTES_MAX)
        throw new RangeError(`${name} is no name: a label of ${length} bytes`)
      target[lengthAt] = length
      lengthAt = offset++
    } else if (isPlain(code)) target[offset++] = code
    else throw new RangeError(`${name} is no name: a letter that is not ASCII, a blank or a backslash`)
  }
  target[lengthAt] = 0
  return offset
}

const DOT = 0x2e

/** The offset behind a name, a pointer being its end; NaN where it runs out of the message. */
export function skipName(message: Buffer, start: number): number {
  let offset = start
  while (offset < message.length) {
    const length = message[offset]!
    if (length === 0) return offset + 1
    if ((length & POINTER) === POINTER) return offset + 2
    if ((length & POINTER) !== 0) return NaN
    offset += length + 1
  }
  return NaN
}

/** A name without pointers, as bytes; undefined where it runs out of the message, in a circle or beyond 255 bytes. */
export function expandName(message: Buffer, start: number): Uint8Array | undefined {
  const name = Buffer.allocUnsafe(NAME_BYTES_MAX)
  let size = 0
  let offset = start
  for (let jumps = 0; jumps <= JUMPS_MAX;) {
    const length = message[offset]
    if (length === undefined) return undefined
    if ((length & POINTER) === POINTER) {
      if (offset + 2 > message.length) return undefined
      const target = message.readUInt16BE(offset) & 0x3fff
      if (target >= offset) return undefined
      offset = target
      jumps++
      continue
    }
    const end = offset + 1 + length
    if (length > LABEL_BYTES_MAX || end > message.length || size + 1 + length > NAME_BYTES_MAX) return undefined
    size += message.copy(name, size, offset, end)
    if (length === 0) return name.subarray(0, size)
    offset = end
  }
  return undefined
}
