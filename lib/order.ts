// Orders of text and of what has a name, by code units: the same on every machine, whatever its language.

export const compareTexts = (a: string, b: string): number => (a < b ? -1 : a > b ? 1 : 0)

type Names = { readonly namespace?: string; readonly name?: string }
const NAMELESS: Names = {}

/** By namespace, then by name. */
export const compareNames = (a: Names = NAMELESS, b: Names = NAMELESS): number =>
  compareTexts(a.namespace ?? '', b.namespace ?? '') || compareTexts(a.name ?? '', b.name ?? '')

type Named = { readonly metadata?: Names }

/** The order of objects in lists. */
export const compareObjects = (a: Named, b: Named): number => compareNames(a.metadata, b.metadata)
