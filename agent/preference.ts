// The annotation `fulmar.dev/topology`: which endpoints of a service to use first, from the nearest on, and whether others
// may be used at all: `node, pool, zone: prefer` or `pool: strict`.

export type PreferredLevel = 'node' | 'pool' | 'zone'
export type Preference = {
  /** The first of them that has an endpoint counts. */
  readonly levels: readonly PreferredLevel[]
  /** True: without an endpoint on any level there is none. False: then any other is used. */
  readonly strict: boolean
}

const LEVELS: ReadonlySet<string> = new Set<PreferredLevel>(['node', 'pool', 'zone'])

/** @returns undefined with what is wrong with the text. */
export function preferenceOf(text: string): Preference | { readonly mistake: string } {
  const [list = '', mode, ...rest] = text.split(':').map((part) => part.trim())
  const levels = list.split(',').map((word) => word.trim())
  const unknown = levels.find((word) => !LEVELS.has(word))
  if (unknown !== undefined) return { mistake: `${JSON.stringify(unknown)} is none of node, pool and zone` }
  if (new Set(levels).size < levels.length) return { mistake: 'names a level twice' }
  if (mode === undefined) return { mistake: 'does not say whether others may be used' }
  if (rest.length > 0 || (mode !== 'strict' && mode !== 'prefer'))
    return { mistake: `${JSON.stringify([mode, ...rest].join(':'))} is neither prefer nor strict` }
  return { levels: levels as PreferredLevel[], strict: mode === 'strict' }
}
