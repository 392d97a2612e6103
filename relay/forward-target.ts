// What one replica of the relay asks another to open a stream to, in the words of OPEN (lib/wire/mux.ts).

/** On which one replica opens streams to nodes of another. */
export const FORWARD_PATH = '/fulmar/v1/forward'
/** Of a host in OPEN. */
const MAX_TARGET = 253

/** What a stream is opened to: `NODE` for the node itself, else `NODE/HOST`. @returns undefined where that is too long. */
export function encodeTarget(node: string, host: string): string | undefined {
  const text = host === node ? node : `${node}/${host}`
  return text.length <= MAX_TARGET ? text : undefined
}
export function decodeTarget(text: string): { readonly node: string; readonly host: string } {
  const [node = '', host = node] = text.split('/')
  return { node, host }
}
