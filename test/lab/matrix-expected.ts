// Which path two sites should have, by what RFC 4787 says of their NATs and not by what the gateways believe. Pure.

import { natsOf, type Nat, type NatName, type NatType } from './nat.ts'
import { hasV4, hasV6, type Underlay } from './plan.ts'

export type ExpectedPath = 'direct' | 'relay-udp' | 'relay-tcp'

/** RFC 4787 §4.1: on what the mapped port depends. EIM, ADM, APDM. */
type Mapping = 'endpoint-independent' | 'address-dependent' | 'address-and-port-dependent'
/** RFC 4787 §5: whose packets come in. EIF, ADF, APDF. */
type Filtering = Mapping
export type NatClass = { readonly mapping: Mapping; readonly filtering: Filtering }

const MOST_OPEN = 'endpoint-independent'
const BY_ADDRESS = 'address-dependent'
const STRICTEST = 'address-and-port-dependent'
const ORDER: readonly Mapping[] = [MOST_OPEN, BY_ADDRESS, STRICTEST]

const CLASSES: Readonly<Record<Exclude<NatType, 'udp-blocked'>, NatClass>> = {
  none: { mapping: MOST_OPEN, filtering: MOST_OPEN },
  'full-cone': { mapping: MOST_OPEN, filtering: MOST_OPEN },
  restricted: { mapping: MOST_OPEN, filtering: BY_ADDRESS },
  'port-restricted': { mapping: MOST_OPEN, filtering: STRICTEST },
  'first-packet-race': { mapping: MOST_OPEN, filtering: STRICTEST },
  'port-not-preserved': { mapping: MOST_OPEN, filtering: STRICTEST },
  'address-dependent': { mapping: BY_ADDRESS, filtering: STRICTEST },
  symmetric: { mapping: STRICTEST, filtering: STRICTEST },
  'symmetric-hash': { mapping: STRICTEST, filtering: STRICTEST },
  'symmetric-sequential': { mapping: STRICTEST, filtering: STRICTEST },
}

/**
 * Whether two NATs punch, by the class of the one (rows) and of the other (columns). A mapping that depends on the
 * destination is found by its peer only from a packet that comes in (peer-reflexive), so the peer must let in a port
 * that it never sent to: its filter may look at the address, not at the port.
 */
const PUNCHES: Readonly<Record<RowClass, Readonly<Record<RowClass, boolean>>>> = {
  'EIM/EIF': { 'EIM/EIF': true, 'EIM/ADF': true, 'EIM/APDF': true, ADM: true, APDM: true },
  'EIM/ADF': { 'EIM/EIF': true, 'EIM/ADF': true, 'EIM/APDF': true, ADM: true, APDM: true },
  'EIM/APDF': { 'EIM/EIF': true, 'EIM/ADF': true, 'EIM/APDF': true, ADM: false, APDM: false },
  ADM: { 'EIM/EIF': true, 'EIM/ADF': true, 'EIM/APDF': false, ADM: false, APDM: false },
  APDM: { 'EIM/EIF': true, 'EIM/ADF': true, 'EIM/APDF': false, ADM: false, APDM: false },
}
type RowClass = 'EIM/EIF' | 'EIM/ADF' | 'EIM/APDF' | 'ADM' | 'APDM'

export function expectedPath(a: NatName, b: NatName, underlay: Underlay, firewall6: boolean): ExpectedPath {
  const sites = [natsOf(a), natsOf(b)] as const
  if (sites.some((nats) => nats.some(({ type }) => type === 'udp-blocked'))) return 'relay-tcp'
  const [left, right] = sites.map((nats) => classOf(nats, firewall6)) as [PerFamily, PerFamily]
  const punches = (family: 4 | 6) => PUNCHES[rowOf(left[family])][rowOf(right[family])]
  return (hasV4(underlay) && punches(4)) || (hasV6(underlay) && punches(6)) ? 'direct' : 'relay-udp'
}

type PerFamily = { readonly 4: NatClass; readonly 6: NatClass }

/** Of two NATs in a row each part is as strict as the stricter of them. IPv6 is filtered at most, never translated. */
function classOf(nats: readonly Nat[], firewall6: boolean): PerFamily {
  const classes = nats.flatMap(({ type }) => (type === 'udp-blocked' ? [] : [CLASSES[type]]))
  const worst = (part: keyof NatClass): Mapping =>
    ORDER.findLast((level) => classes.some((each) => each[part] === level)) ?? MOST_OPEN
  const open6 = !firewall6 || nats.every(({ type }) => type === 'none')
  return {
    4: { mapping: worst('mapping'), filtering: worst('filtering') },
    6: { mapping: MOST_OPEN, filtering: open6 ? MOST_OPEN : STRICTEST },
  }
}

function rowOf({ mapping, filtering }: NatClass): RowClass {
  if (mapping === BY_ADDRESS) return 'ADM'
  if (mapping === STRICTEST) return 'APDM'
  return filtering === MOST_OPEN ? 'EIM/EIF' : filtering === BY_ADDRESS ? 'EIM/ADF' : 'EIM/APDF'
}
