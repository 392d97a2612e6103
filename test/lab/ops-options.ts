// The flags of `lab ops`.

import { integer, list, type Option } from '../../lib/config.ts'
import { PROTOCOLS, type Protocol } from './kubectl/session.ts'
import type { NatName } from './nat.ts'
import { JSON_FLAG, UP } from './options.ts'

/** Sites of the lab, and what they are behind. */
export const SITES = { north: 'symmetric', south: 'udp-blocked' } as const satisfies Readonly<Record<string, NatName>>
export type SiteName = keyof typeof SITES
const SITE_NAMES = Object.keys(SITES) as readonly SiteName[]

/** Some of these, at least one. */
const someOf =
  <T extends string>(all: readonly T[]) =>
  (value: string): readonly T[] =>
    list((item) => {
      const known = all.find((each) => each === item)
      if (known === undefined) throw new Error(`${item} is none of ${all.join(', ')}`)
      return known
    })(value || all.join())

export const OPS = {
  id: { ...UP.id, fallback: 'ops' },
  rtt: {
    name: 'rtt',
    value: 'MS',
    doc: 'round-trip time between each site and the cloud',
    fallback: '80',
    parse: integer(0, 2_000),
  } satisfies Option<number>,
  copyMib: {
    name: 'copy-mib',
    value: 'N',
    doc: 'MiB that kubectl cp copies each way',
    fallback: '64',
    parse: integer(1, 4_096),
  } satisfies Option<number>,
  kubectl: {
    name: 'kubectl',
    value: 'PROGRAM,…',
    doc: 'each of these; those before 1.31 speak SPDY only',
    fallback: 'kubectl',
    parse: (value) => {
      const programs = list((item) => item)(value)
      if (programs.length === 0) throw new Error('is empty')
      return programs
    },
  } satisfies Option<readonly string[]>,
  sites: {
    name: 'sites',
    value: 'SITE,…',
    doc: 'only these: north is behind a symmetric NAT, south lets out TCP to port 443 alone',
    fallback: SITE_NAMES.join(),
    parse: someOf(SITE_NAMES),
  } satisfies Option<readonly SiteName[]>,
  protocols: {
    name: 'protocols',
    value: 'NAME,…',
    doc: 'only these, of those that a kubectl speaks',
    fallback: PROTOCOLS.join(),
    parse: someOf(PROTOCOLS),
  } satisfies Option<readonly Protocol[]>,
  cases: {
    name: 'cases',
    value: 'NAME,…',
    doc: 'only these',
    fallback: '',
    parse: list((item) => item),
  } satisfies Option<readonly string[]>,
  json: JSON_FLAG,
}
