// Which frontends the socket load balancer serves, and by which targets. It serves TCP. Left to nft, whose rules hold
// everything, are: callers from other hosts; UDP and SCTP; loadBalancerSourceRanges, since at connect() the source is not
// known yet; frontends without a target whose packets are to be dropped.

import { createHash } from 'node:crypto'
import type { Family } from '../lib/cidr.ts'
import { trimmed } from '../lib/k8s/kept.ts'
import type { Frontend, ServiceFrontends, Target } from './balance.ts'
import { FLAG_NODE_ONLY, type Place } from './socket-lb-records.ts'

/** What answers at one address and port. */
export type Entry = {
  readonly service: string
  readonly place: Place
  readonly flags: number
  readonly targets: readonly Target[]
  readonly affinity?: { readonly service: bigint; readonly seconds: number }
}

export type EntriesOptions = {
  /** The node's own addresses that serve NodePorts; 127.0.0.1 and ::1 do so beside them, for the node itself. */
  readonly nodeAddresses: readonly string[]
  /** Calls may be refused; else frontends without targets are left to nft. */
  readonly refuse: boolean
  /** Addresses that are left to nft. */
  readonly except: ReadonlySet<string>
}

const LOOPBACK: Readonly<Record<Family, string>> = { 4: '127.0.0.1', 6: '::1' }
/** Weights of a service are rounded so that it has no more slots than these, but one for each target. */
const SLOTS_MAX = 4096

export function entriesOf({ frontends }: ServiceFrontends, options: EntriesOptions): readonly Entry[] {
  const entries = frontends.flatMap((frontend): readonly Entry[] => {
    const { service, family, protocol, kind, address, port, sourceRanges, whenEmpty, affinitySeconds } = frontend
    const targets = frontend.insideTargets ?? frontend.targets
    if (protocol !== 'TCP' || sourceRanges !== undefined || (address !== undefined && options.except.has(address)))
      return []
    if (targets.length === 0 && (whenEmpty === 'drop' || !options.refuse)) return []
    const affinity =
      affinitySeconds === undefined ? undefined : { service: affinityId(frontend), seconds: affinitySeconds }
    const entry = (place: Place, flags: number): Entry =>
      affinity === undefined ? { service, place, flags, targets } : { service, place, flags, targets, affinity }
    if (kind !== 'node-port') return [entry({ family, address: address!, port }, 0)]
    const own = options.nodeAddresses.filter((text) => text.includes(':') === (family === 6))
    return [
      ...own.map((text) => entry({ family, address: text, port }, 0)),
      entry({ family, address: LOOPBACK[family], port }, FLAG_NODE_ONLY),
    ]
  })
  return trimmed(entries)
}

/** The same for all addresses of a service port, and in the next agent. */
const affinityId = ({ service, portName, protocol, family }: Frontend): bigint =>
  createHash('sha256').update(`${service} ${portName} ${protocol} ${family}`).digest().readBigUInt64LE() | 1n

/** Each target as often as its weight says, in the order given. */
export function slotsOf(targets: readonly Target[]): readonly Target[] {
  if (targets.every(({ weight }) => weight === targets[0]!.weight)) return targets
  const divisor = targets.reduce((divisor, { weight }) => gcd(divisor, weight), 0)
  const total = targets.reduce((sum, { weight }) => sum + weight, 0) / divisor
  const scale = Math.min(1, SLOTS_MAX / total) / divisor
  return targets.flatMap((target) => Array<Target>(Math.max(1, Math.floor(target.weight * scale))).fill(target))
}

const gcd = (a: number, b: number): number => (b === 0 ? a : gcd(b, a % b))
