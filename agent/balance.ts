// What answers at each address and port of every service, seen from this node: the list that nft and the socket load
// balancer are made from. They decide nothing themselves.

import { Claims } from './claims.ts'
import type { Health, Paths } from './choice.ts'
import type { Cluster, ClusterService, ServiceSelection } from './cluster.ts'
import { frontendsOf, type HealthCheck, type ServiceBalance, type Suspect, type Surroundings } from './frontends.ts'
import type { Here } from './topology.ts'

export type { Health, Paths, Target } from './choice.ts'
export type { Frontend, HealthCheck, ServiceBalance, ServiceFrontends, Suspect } from './frontends.ts'

export type Balance = {
  /** In the order of the cluster; services that are not served from here are absent. */
  readonly services: readonly ServiceBalance[]
  readonly healthChecks: readonly HealthCheck[]
  /** Endpoints that look dead from here, whether they are used or not. */
  readonly suspects: readonly Suspect[]
  readonly problems: readonly string[]
}

export type BalanceInput = {
  readonly cluster: Cluster
  readonly here: Here
  /** All but those left to other proxies, unless told otherwise. */
  readonly selection?: ServiceSelection
  readonly health?: Health | undefined
  readonly paths?: Paths | undefined
}

type Entry = { raw: ServiceBalance; allowed: ServiceBalance; pass: number }

/** Remembers what it made: the next call costs what changed, and gives what a new one would give. */
export function createBalancer(): (input: BalanceInput) => Balance {
  const entries = new Map<string, Entry>()
  const claims = new Claims()
  let pass = 0
  let last: Omit<BalanceInput, 'cluster'> | undefined
  /** Of the last call, side by side. */
  let services: readonly ClusterService[] = []
  let found: readonly (Entry | undefined)[] = []

  const entryOf = (service: ClusterService, surroundings: Surroundings, touched: Set<string>): Entry => {
    const raw = remembered(service, surroundings)
    let entry = entries.get(raw.service)
    if (entry?.raw !== raw) {
      touched.add(raw.service)
      for (const other of claims.replace(raw.service, entry?.raw, raw)) touched.add(other)
      if (entry === undefined) entries.set(raw.service, (entry = { raw, allowed: raw, pass }))
      else entry.raw = raw
    }
    return entry
  }
  const remove = (touched: Set<string>): void => {
    for (const [key, { raw, pass: seen }] of entries) {
      if (seen === pass) continue
      entries.delete(key)
      for (const other of claims.replace(key, raw, undefined)) touched.add(other)
    }
  }

  return (input) => {
    const { cluster, here, selection = 'all', health, paths } = input
    const sameView =
      last?.here === here && last.selection === input.selection && last.health === health && last.paths === paths
    last = input
    pass++
    const touched = new Set<string>()
    const now: (Entry | undefined)[] = []
    let count = 0
    let at = 0
    for (const service of cluster.services) {
      // Most are where they were, or one further when another came or went.
      if (services[at] !== service && services[at + 1] === service) at++
      const isKnown = sameView && services[at] === service
      const isServed = service.kind === 'virtual' && service.served[selection]
      const entry = isKnown ? found[at] : isServed ? entryOf(service, { here, health, paths }, touched) : undefined
      if (services[at] === service || services[at]?.name === service.name) at++
      now.push(entry)
      if (entry === undefined) continue
      entry.pass = pass
      count++
    }
    services = cluster.services
    found = now
    if (entries.size > count) remove(touched)
    for (const key of touched) {
      const entry = entries.get(key)
      if (entry !== undefined) entry.allowed = claims.allowed(entry.raw)
    }

    const balanced: ServiceBalance[] = []
    const healthChecks: HealthCheck[] = []
    const suspects: Suspect[] = []
    const problems: string[] = [...claims.problems()]
    for (const entry of now) {
      if (entry === undefined) continue
      const service = entry.allowed
      balanced.push(service)
      if (service.healthCheck !== undefined) healthChecks.push(service.healthCheck)
      if (service.suspects.length > 0) suspects.push(...service.suspects)
      if (service.problems.length > 0) problems.push(...service.problems)
    }
    return { services: balanced, healthChecks, suspects, problems }
  }
}

export const balanceOf = (input: BalanceInput): Balance => createBalancer()(input)

type Made = Surroundings & { readonly answers: string; readonly frontends: ServiceBalance }
const made = new WeakMap<ClusterService, Made>()

/** Made anew where the service, this node, or an answer about one of its endpoints changed. */
function remembered(service: ClusterService, surroundings: Surroundings): ServiceBalance {
  const known = made.get(service)
  const { here, health, paths } = surroundings
  if (known?.here === here && known.health === health && known.paths === paths) return known.frontends
  const answers = answersOf(service, surroundings)
  const frontends =
    known?.here === here && known.answers === answers ? known.frontends : frontendsOf(service, surroundings)
  made.set(service, { here, health, paths, answers, frontends })
  return frontends
}

/** All that is asked about the endpoints of a service. */
function answersOf({ endpoints }: ClusterService, { health, paths }: Surroundings): string {
  if (health === undefined && paths === undefined) return ''
  let answers = ''
  endpoints.forEach(({ address, node, ports }, i) => {
    const path = node === undefined ? undefined : paths?.(node)
    if (path !== undefined) answers += `${i} ${path};`
    for (const { port } of ports) {
      const reason = health?.(address, port, node)
      if (reason !== undefined) answers += `${i} ${port} ${reason};`
    }
  })
  return answers
}
