// node:ffi, by which the C library is called without an addon or a compiler. It is loaded on first use, since it costs
// memory that not every daemon need spend.

import type * as Ffi from 'node:ffi'
import type { Server, Socket } from 'node:net'

/** @throws Error where this Node has none. */
export function loadFfi(): typeof Ffi {
  const { emitWarning } = process
  // Node says once that it may change; the version of Node is pinned, so nobody needs to hear it. Other warnings pass.
  process.emitWarning = (warning: string | Error, ...rest: unknown[]): void => {
    if (rest[0] === 'ExperimentalWarning' && String(warning).startsWith('FFI ')) return
    Reflect.apply(emitWarning, process, [warning, ...rest])
  }
  try {
    const ffi = process.getBuiltinModule('node:ffi')
    if (ffi === undefined) throw new Error(`Node ${process.version} has no node:ffi`)
    return ffi
  } finally {
    process.emitWarning = emitWarning
  }
}

/** @returns what gives these functions of the C library, which it opens once, when first asked; undefined where there are none. */
export function libc<const D extends Ffi.FunctionDefinitions>(
  signatures: D,
): () => Ffi.DynamicLibraryResult<D>['functions'] | undefined {
  let opened: { readonly functions?: Ffi.DynamicLibraryResult<D>['functions'] } | undefined
  return () => (opened ??= open(signatures)).functions
}

function open<const D extends Ffi.FunctionDefinitions>(signatures: D): Partial<Ffi.DynamicLibraryResult<D>> {
  try {
    return loadFfi().dlopen(null, signatures)
  } catch {
    return {}
  }
}

/** @returns the descriptor, which Node keeps to itself; -1 where it is closed. */
export const fdOf = (socket: Socket | Server): number =>
  (socket as unknown as { readonly _handle?: { readonly fd?: number } })._handle?.fd ?? -1
