// The flags of `lab ops`.

import { integer, list, type Option } from '../../lib/config.ts'
import { JSON_FLAG, UP } from './options.ts'

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
  cases: {
    name: 'cases',
    value: 'NAME,…',
    doc: 'only these',
    fallback: '',
    parse: list((item) => item),
  } satisfies Option<readonly string[]>,
  json: JSON_FLAG,
}
