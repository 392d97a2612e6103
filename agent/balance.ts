// What answers at each address and port of every service, seen from this node: the list that nft and the socket load
// balancer are made from. They decide nothing themselves.

import { byName, Claims } from './claims.ts'
import type { Health, Paths } from './choice.ts'
import type { Cluster, ClusterService, ServiceSelection } from './cluster.ts'
import { frontendsOf, type HealthCheck, type ServiceBalance, type Suspect, type Surroundings } from './frontends.ts'
import { sortedPairs } from './sorted-pairs.ts'
import type { Here } from './topology.ts'

export type { Health, Paths, Target } from './choice.ts'
export type { Frontend, HealthCheck, ServiceBalance, ServiceFrontends, Suspect } from './frontends.ts'

export type Balance = {
  /** In the order of the cluster; services that are not served from here are absent. */
  readonly services: readonly ServiceBalance[]
  readonly healthChecks: readonly HealthCheck[]
  /** Endpoints that look dead from here, whether they are used or not. */
  readonly suspects: readonly Suspect[]
  /** This node's endpoints that are targets: they may call themselves by way of a service. */
  readonly localTargets: readonly string[]
  readonly problems: readonly string[]
}

/** Where services are left to another proxy. */
export const NO_BALANCE: Balance = { services: [], healthChecks: [], suspects: [], localTargets: [], problems: [] }

export type BalanceInput = {
  readonly cluster: Cluster
  readonly here: Here
  /** All but those left to other proxies, unless told otherwise. */
  readonly selection?: ServiceSelection
  readonly health?: Health | undefined
  readonly paths?: Paths | undefined
}

type Entry = { raw: ServiceBalance; allowed: ServiceBalance }

/** Remembers what it made: the next call costs what changed, and gives what a new one would give. */
export function createBalancer(): (input: BalanceInput) => Balance {
  const entries = new Map<string, Entry>()
  const claims = new Claims()
  /** Those that have more to say than frontends: few. */
  const notable = new Map<string, ServiceBalance>()
  let last: BalanceInput | undefined
  /** In the order of the last cluster's services. */
  let found: readonly (ServiceBalance | undefined)[] = []
  let extras: Omit<Balance, 'services'> = { healthChecks: [], suspects: [], localTargets: [], problems: [] }

  /** @returns services whose rights may have changed with it. */
  const replace = (key: string, raw: ServiceBalance | undefined): readonly string[] => {
    const entry = entries.get(key)
    if (entry?.raw === raw) return []
    if (raw === undefined) {
      entries.delete(key)
      notable.delete(key)
    } else entries.set(key, { raw, allowed: raw })
    return [key, ...claims.replace(key, entry?.raw, raw)]
  }

  return (input) => {
    const { cluster, here, selection = 'all', health, paths } = input
    const sameView =
      last?.here === here && last.selection === input.selection && last.health === health && last.paths === paths
    const touched = new Set<string>()
    const changed = new Map<string, number>()
    const next = Array<ServiceBalance | undefined>(cluster.services.length)
    let count = 0
    const look = (service: ClusterService): void => {
      const key = keyOf(service)
      const isServed = service.kind === 'virtual' && service.served[selection]
      changed.set(key, count)
      next[count++] = undefined
      for (const other of replace(key, isServed ? remembered(service, { here, health, paths }) : undefined))
        touched.add(other)
    }
    const before = last?.cluster.services ?? []
    const keep = (index: number, same: number): void => {
      for (let n = index; n < index + same; n++)
        if (sameView) next[count++] = found[n]
        else look(before[n]!)
    }
    for (const [had, now] of sortedPairs(before, cluster.services, byServiceName, keep))
      if (now !== undefined) look(now)
      else for (const other of replace(keyOf(had!), undefined)) touched.add(other)

    for (const key of touched) {
      const entry = entries.get(key)
      if (entry === undefined) continue
      entry.allowed = claims.allowed(entry.raw)
      if (isNotable(entry.allowed)) notable.set(key, entry.allowed)
      else notable.delete(key)
    }
    for (const [key, index] of changed) next[index] = entries.get(key)?.allowed
    // Others lost or got an address: there is no index of where they are, since it is rare.
    if ([...touched].some((key) => entries.has(key) && !changed.has(key)))
      cluster.services.forEach((service, index) => (next[index] = entries.get(keyOf(service))?.allowed))
    if (touched.size > 0) extras = extrasOf(notable, claims)
    last = input
    found = next
    return { services: present(next), ...extras }
  }
}

/** Mostly all are: of tens of thousands no other list is made with each change. */
const present = <T>(items: readonly (T | undefined)[]): readonly T[] =>
  items.includes(undefined) ? items.filter((item) => item !== undefined) : (items as readonly T[])

const keyOf = ({ namespace, name }: ClusterService) => `${namespace}/${name}`
const byServiceName = (a: ClusterService, b: ClusterService) =>
  a.namespace === b.namespace ? (a.name < b.name ? -1 : a.name > b.name ? 1 : 0) : a.namespace < b.namespace ? -1 : 1

const isNotable = ({ healthCheck, suspects, localTargets, problems }: ServiceBalance): boolean =>
  healthCheck !== undefined || suspects.length > 0 || localTargets.length > 0 || problems.length > 0

function extrasOf(notable: ReadonlyMap<string, ServiceBalance>, claims: Claims): Omit<Balance, 'services'> {
  const services = [...notable].sort(([a], [b]) => byName(a, b)).map(([, service]) => service)
  return {
    healthChecks: services.flatMap(({ healthCheck }) => healthCheck ?? []),
    suspects: services.flatMap(({ suspects }) => suspects),
    localTargets: [...new Set(services.flatMap(({ localTargets }) => localTargets))],
    problems: [...claims.problems(), ...services.flatMap(({ problems }) => problems)],
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
  // Most ways are direct: with nothing to add, all services share one text.
  let answers = paths === undefined ? '' : 'direct;'
  endpoints.forEach(({ address, node, ports }, i) => {
    const path = node === undefined || paths === undefined ? 'direct' : paths(node)
    if (path !== 'direct') answers += `${i} ${path};`
    for (const { port, protocol } of ports) {
      const reason = health?.(address, port, node, protocol)
      if (reason !== undefined) answers += `${i} ${protocol} ${port} ${reason};`
    }
  })
  return answers
}
