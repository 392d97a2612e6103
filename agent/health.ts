// What this node knows of endpoints and of the ways there, as the chooser asks for it (agent/choice.ts): nodes that are
// silent, pools that are out of reach or reached by the relay, endpoints that do not answer. Pure.

import type { Pool } from '../lib/k8s/pools.ts'
import type { Finding } from '../lib/wire/lan-findings.ts'
import type { Health, Paths } from './choice.ts'
import type { Cluster } from './cluster.ts'
import type { Verdict } from './endpoint-checks.ts'

export type HealthFacts = {
  /** Ours: nobody knows better how it is. */
  readonly node: string
  readonly pools: readonly Pool[]
  /** Of the gateway that this node follows. */
  readonly findings: readonly Finding[]
  /** Pools that nothing reaches. */
  readonly down: ReadonlySet<string>
  /** By `address port`. */
  readonly dead: ReadonlyMap<string, Verdict>
}
export type HealthView = {
  /** undefined while there is nothing against any endpoint, which costs the chooser nothing. */
  readonly health: Health | undefined
  readonly paths: Paths
}

export const REASONS = {
  node: 'its node is silent',
  path: 'its pool is not reached',
  refused: 'it refuses connections',
  silent: 'it does not answer',
} as const

/** @returns a reader that gives the same functions while they give the same answers. */
export function createHealthView(): (facts: HealthFacts) => HealthView {
  let known: { readonly against: string; readonly relayed: string; readonly view: HealthView } | undefined
  return (facts) => {
    const nodes = nodesAgainst(facts)
    const relayedNodes = relayedOf(facts)
    const against = JSON.stringify([[...nodes], [...facts.dead]])
    const relayed = JSON.stringify([...relayedNodes])
    if (known?.against === against && known.relayed === relayed) return known.view
    const view = {
      health: known?.against === against ? known.view.health : healthOf(nodes, facts.dead),
      paths: known?.relayed === relayed ? known.view.paths : pathsOf(relayedNodes),
    }
    known = { against, relayed, view }
    return view
  }
}

function healthOf(nodes: ReadonlyMap<string, string>, dead: HealthFacts['dead']): Health | undefined {
  if (nodes.size === 0 && dead.size === 0) return undefined
  return (address, port, node, protocol) => {
    const reason = node === undefined ? undefined : nodes.get(node)
    if (reason !== undefined || protocol !== 'TCP') return reason
    const verdict = dead.get(`${address} ${port}`)
    return verdict && REASONS[verdict]
  }
}

/** A pool that is cold is reached as soon as it is called, and directly soon after. */
const pathsOf =
  (relayed: ReadonlySet<string>): Paths =>
  (node) =>
    relayed.has(node) ? 'relayed' : 'direct'

function nodesAgainst({ node, pools, findings, down }: HealthFacts): ReadonlyMap<string, string> {
  const against = new Map<string, string>()
  for (const { name, nodes } of pools)
    if (down.has(name) && !nodes.some((own) => own.name === node))
      for (const { name } of nodes) against.set(name, REASONS.path)
  for (const finding of findings) {
    if (finding.kind !== 'node' || finding.node === node) continue
    const pool = pools.find(({ name }) => name === finding.pool)
    if (pool?.nodes.some(({ name }) => name === finding.node) === true) against.set(finding.node, REASONS.node)
  }
  return against
}

function relayedOf({ pools, findings }: HealthFacts): ReadonlySet<string> {
  const relayed = new Set(
    findings.flatMap((each) => (each.kind === 'path' && each.state === 'relayed' ? [each.pool] : [])),
  )
  if (relayed.size === 0) return NONE
  return new Set(pools.flatMap(({ name, nodes }) => (relayed.has(name) ? nodes.map((node) => node.name) : [])))
}
const NONE: ReadonlySet<string> = new Set()

/** TCP endpoints by `address port`, with their nodes, of those that a call may go to. */
export function tcpEndpoints({ services }: Pick<Cluster, 'services'>): ReadonlyMap<string, string | undefined> {
  const found = new Map<string, string | undefined>()
  for (const { endpoints } of services)
    for (const { address, node, ready, draining, ports } of endpoints)
      if (ready || draining)
        for (const { protocol, port } of ports) if (protocol === 'TCP') found.set(`${address} ${port}`, node)
  return found
}
