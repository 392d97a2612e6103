// The flags of `lab matrix`.

import { availableParallelism } from 'node:os'
import { flag, integer, type Option } from '../../lib/config.ts'
import { SLOTS_MAX } from './matrix-core.ts'
import { JSON_FLAG, UP } from './options.ts'

const ROUNDS = 20
const LOSSY_ROUNDS = 3
export const LIMIT_MINUTES = 15
export const LIMIT_FULL_MINUTES = 40
/** Pairs under way, for each processor: more only make each other late. */
const PER_PROCESSOR = 3

const number = (name: string, doc: string, fallback: number, min: number, max: number) =>
  ({ name, doc, value: 'N', fallback: String(fallback), parse: integer(min, max) }) satisfies Option<number>

export const MATRIX = {
  id: { ...UP.id, fallback: 'matrix' },
  full: {
    name: 'full',
    doc: 'IPv6 too, with and without stateful firewalls',
    fallback: 'false',
    parse: flag,
  } satisfies Option<boolean>,
  sites: { ...UP.nat, doc: `the sites, instead of one of each type; ${UP.nat.doc}`, value: 'NAME=NAT,…' },
  pools: { ...UP.pools, doc: 'only these of the sites' },
  underlay: UP.underlay,
  firewall6: UP.firewall6,
  rounds: number('rounds', 'rounds without loss', ROUNDS, 0, 10_000),
  lossyRounds: number('lossy-rounds', 'rounds with loss', LOSSY_ROUNDS, 0, 10_000),
  loss: number('loss', 'per cent of UDP packets lost in those', 10, 1, 90),
  atOnce: number('at-once', 'pairs tried at once', PER_PROCESSOR * availableParallelism(), 1, SLOTS_MAX),
  minutes: number(
    'minutes',
    `after which no round begins (default ${LIMIT_MINUTES}, --full ${LIMIT_FULL_MINUTES})`,
    0,
    0,
    10_000,
  ),
  json: JSON_FLAG,
}
