// What one service has in the maps of nft.ts. Callers from outside and the node with its pods may have different endpoints
// (externalTrafficPolicy: Local): `services` leads to local-policy then, which finds them in `outside` and `inside`. Where
// only some may call, it leads to restricted-policy, and on by `restricted`. ClientIP affinity has chains and sets of its own,
// whose names are hashes of their content, so that they are made and removed, but never changed.

import { createHash } from 'node:crypto'
import { parseCidr, type Family } from '../lib/cidr.ts'
import type { Frontend, ServiceFrontends, Target } from './balance.ts'
import type { Protocol } from './cluster.ts'
import { ipOf, mapOf, prefixText, withoutInner, type EndpointClass } from './nft.ts'

/** Of one service, or of several together. */
export class ServiceRules implements Draft {
  /** By set or map. */
  readonly elements = new Map<string, Map<string, string>>()
  /** Sets and chains of affinity by name: the type of a set, the rules of a chain, in an order in which they can be made. */
  readonly sets = new Map<string, string>()
  readonly chains = new Map<string, readonly string[]>()

  set(object: string, key: string, value: string): void {
    const known = this.elements.get(object)
    if (known === undefined) this.elements.set(object, new Map([[key, value]]))
    else known.set(key, value)
  }

  setSlots(map: string, key: string, slots: readonly Target[]): void {
    for (const [each, value] of slotElements(key, slots)) this.set(map, each, value)
  }
}

/** Weights are scaled down to about this many slots. */
const SLOTS_MAX = 1024
/** The bit by which kube-proxy and CNIs know what is to be masqueraded. */
export const MASQUERADE_MARK = '0x4000'

const protocolText: Readonly<Record<Protocol, string>> = { TCP: 'tcp', UDP: 'udp', SCTP: 'sctp' }

export function rulesOf(service: ServiceFrontends, family: Family): ServiceRules {
  const rules = new ServiceRules()
  addRules(rules, service, family)
  return rules
}

/** What rules are written to: an element of a set may come more than once. */
export type Draft = {
  readonly set: (object: string, key: string, value: string) => void
  /** What the key has in the map of a class; those who need no text of each slot are spared it. */
  readonly setSlots: (map: string, key: string, slots: readonly Target[]) => void
  readonly sets: Map<string, string>
  readonly chains: Map<string, readonly string[]>
}

export function addRules(draft: Draft, { frontends }: ServiceFrontends, family: Family): void {
  for (const frontend of frontends) if (frontend.family === family) addFrontend(draft, frontend)
}

function addFrontend(rules: Draft, frontend: Frontend): void {
  const { kind, address, protocol, port, sourceRanges, whenEmpty } = frontend
  const own = kind === 'node-port' ? 'node-' : ''
  const key = `${own === '' ? `${address} . ` : ''}${protocolText[protocol]} . ${port}`
  const set = (object: string, value: string, at = key): void => rules.set(object, at, value)
  /** To the targets, whose slots are written down. */
  const verdict = (targets: readonly Target[], prefix: EndpointClass['prefix'], masquerades: boolean): string => {
    if (targets.length === 0) return ''
    if (frontend.affinitySeconds !== undefined) return `goto ${addAffinity(rules, frontend, targets, masquerades)}`
    const slots = slotsOf(targets)
    const map = mapOf({ prefix, count: slots.length })
    rules.setSlots(map, key, slots)
    return `goto ${prefix}${masquerades ? 'masq' : 'class'}-${slots.length}`
  }
  const empty = whenEmpty === 'drop' ? 'drop' : 'goto refuse'

  if (kind === 'cluster-ip') {
    set('cluster-ips', '', address)
    return set('services', verdict(frontend.targets, '', false) || empty)
  }
  let to: string
  if (frontend.keepsSource) {
    set(`${own}outside`, verdict(frontend.targets, own, false) || empty)
    const inside = frontend.insideTargets ?? frontend.targets
    set(`${own}inside`, verdict(inside, `${own}inside-`, false) || 'goto refuse')
    to = `goto ${own}local-policy`
  } else to = verdict(frontend.targets, own, true) || empty

  if (kind === 'node-port') return set('node-ports', to)
  if (sourceRanges === undefined) return set('services', to)
  const ranges = sourceRanges.flatMap((text) => parseCidr(text) ?? [])
  for (const range of withoutInner(ranges)) set('source-ranges', '', `${key} . ${prefixText(range)}`)
  set('restricted', to)
  set('services', 'goto restricted-policy')
}

export const slotElements = (
  key: string,
  slots: readonly Target[],
): readonly (readonly [key: string, value: string])[] =>
  slots.map(({ address, port }, slot) => [`${key} . ${slot}`, `${address} . ${port}`])

/** Each target as often as its weight. */
function slotsOf(targets: readonly Target[]): readonly Target[] {
  const sum = targets.reduce((sum, { weight }) => sum + weight, 0)
  // As most are: of all services they take a tenth of a second otherwise.
  if (sum === targets.length && sum <= SLOTS_MAX) return targets
  const scale = sum > SLOTS_MAX ? SLOTS_MAX / sum : 1
  return targets.flatMap((target) =>
    Array.from({ length: Math.max(1, Math.floor(target.weight * scale)) }, () => target),
  )
}

/** @returns the chain that picks where the client was last, else by chance. */
function addAffinity(rules: Draft, frontend: Frontend, targets: readonly Target[], masquerades: boolean): string {
  const { service, portName, protocol, family, affinitySeconds } = frontend
  const ip = ipOf(family)
  const scope = `${service} ${portName} ${protocol} ${affinitySeconds}`
  const ids = new Map(targets.map((target) => [target, hash(`${scope} ${target.address} ${target.port}`)]))
  for (const [{ address, port }, id] of ids) {
    rules.sets.set(
      `sticky-${id}`,
      `type ${family === 4 ? 'ipv4_addr' : 'ipv6_addr'}; flags dynamic,timeout; timeout ${affinitySeconds}s`,
    )
    rules.chains.set(`to-${id}`, [
      `update @sticky-${id} { ${ip} saddr }`,
      `meta l4proto ${protocolText[protocol]} dnat to ${family === 4 ? address : `[${address}]`}:${port}`,
    ])
  }
  const slots = slotsOf(targets)
  const choices = slots.map((target, i) => `${i} : goto to-${ids.get(target)}`)
  const body = [
    ...(masquerades ? [markOutsiders(family)] : []),
    ...[...ids.values()].map((id) => `${ip} saddr @sticky-${id} goto to-${id}`),
    `numgen random mod ${slots.length} vmap { ${choices.join(', ')} }`,
  ]
  const chain = `affinity-${hash(body.join('\n'))}`
  rules.chains.set(chain, body)
  return chain
}

/** Answers to this node's own pods come by here as they are. */
export const markOutsiders = (family: Family): string =>
  `${ipOf(family)} saddr != @own-pods meta mark set meta mark | ${MASQUERADE_MARK}`

const hash = (text: string): string => createHash('sha256').update(text).digest('hex').slice(0, 16)
