// Memory of what passes, freed by hand. Node gives what a socket reads memory of its own, and V8 frees that when a collection
// finds that nobody refers to it: until then tens of megabytes lie about, and each read goes to memory that no cache has; a
// socket reads half as fast (measured, Node 26). Whoever knows that he is the last to look at a chunk frees it, and the
// next one finds the same memory.

const OURS = Symbol('for free')
type Memory = ArrayBufferLike & { [OURS]?: true }

/** What is smaller is left to V8. */
const WORTH_BYTES = 1024

/** Memory for `free`. */
export function allocate(bytes: number): Buffer {
  const chunk = Buffer.allocUnsafeSlow(bytes)
  ;(chunk.buffer as Memory)[OURS] = true
  return chunk
}

/** To be called once, by the last who looks at a chunk. Where others may lie in the same memory, that is left to V8. */
export function free({ length, buffer }: Buffer): void {
  const memory: Memory = buffer
  const isAlone = length === memory.byteLength && length >= WORTH_BYTES
  if ((isAlone || memory[OURS]) && memory instanceof ArrayBuffer) memory.transfer(0)
}
