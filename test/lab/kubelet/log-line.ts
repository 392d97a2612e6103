// Lines of a container's log file as the CRI writes them:
//   2026-11-21T21:14:26.123000000Z stdout F text        F: a whole line; P: a piece of one, whose rest follows

export type OutputName = 'stdout' | 'stderr'
export type LogLine = {
  readonly time: string
  readonly stream: OutputName
  readonly text: Buffer
  readonly whole: boolean
}

const NEWLINE = 0x0a

/** @param text without its newline. */
export function encodeLogLine({ time, stream, text, whole }: LogLine): Buffer {
  return Buffer.concat([Buffer.from(`${time} ${stream} ${whole ? 'F' : 'P'} `), text, Buffer.from([NEWLINE])])
}

/** @param line without its newline. @returns undefined for what is none. */
export function decodeLogLine(line: Buffer): LogLine | undefined {
  const first = line.indexOf(' ')
  const second = line.indexOf(' ', first + 1)
  const third = line.indexOf(' ', second + 1)
  if (first < 0 || second < 0 || third < 0) return undefined
  const stream = line.toString('latin1', first + 1, second)
  if (stream !== 'stdout' && stream !== 'stderr') return undefined
  return {
    time: line.toString('latin1', 0, first),
    stream,
    text: line.subarray(third + 1),
    whole: line[second + 1] === 0x46,
  }
}

/** RFC 3339 with nanoseconds, as the kubelet prints it. */
export const logTime = (ms: number): string => new Date(ms).toISOString().replace('Z', '000000Z')

/** Cuts bytes into lines; what has no newline yet waits for it, up to a bound. */
export class LineSplitter {
  readonly #maxBytes: number
  #rest: Buffer = Buffer.alloc(0)

  constructor(maxBytes: number) {
    this.#maxBytes = maxBytes
  }

  *push(chunk: Buffer): Generator<{ readonly text: Buffer; readonly whole: boolean }> {
    let bytes = this.#rest.length === 0 ? chunk : Buffer.concat([this.#rest, chunk])
    for (let end = bytes.indexOf(NEWLINE); bytes.length > 0; end = bytes.indexOf(NEWLINE)) {
      if (end < 0 && bytes.length < this.#maxBytes) break
      const isWhole = end >= 0 && end <= this.#maxBytes
      const length = isWhole ? end : this.#maxBytes
      yield { text: bytes.subarray(0, length), whole: isWhole }
      bytes = bytes.subarray(isWhole ? length + 1 : length)
    }
    this.#rest = Buffer.from(bytes)
  }

  /** What is left at the end, which has no newline. */
  end(): Buffer {
    const rest = this.#rest
    this.#rest = Buffer.alloc(0)
    return rest
  }
}
