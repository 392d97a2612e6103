// What answers at each address and port of every service, seen from this node: the list that nft and the socket load
// balancer are made from. They decide nothing themselves.

import { compareNames } from '../lib/order.ts'
import { changesBetween, EMPTY, SortedItems, type SortedList } from '../lib/sorted-list.ts'
import { byName, Claims } from './claims.ts'
import type { Health, Paths } from './choice.ts'
import type { Cluster, ClusterService, ServiceSelection } from './cluster.ts'
import { frontendsOf, type HealthCheck, type ServiceBalance, type ServiceFrontends, type Suspect } from './frontends.ts'
import type { Here } from './topology.ts'

export type { Health, Paths, Target } from './choice.ts'
export type { Frontend, HealthCheck, ServiceBalance, ServiceFrontends, Suspect } from './frontends.ts'

export type Balance = {
  /** In the order of the cluster; services that are not served from here are absent. */
  readonly services: SortedList<ServiceBalance>
  readonly healthChecks: readonly HealthCheck[]
  /** Endpoints that look dead from here, whether they are used or not. */
  readonly suspects: readonly Suspect[]
  /** This node's endpoints that are targets: they may call themselves by way of a service. */
  readonly localTargets: readonly string[]
  readonly problems: readonly string[]
}

/** Where services are left to another proxy. */
export const NO_BALANCE: Balance = { services: EMPTY, healthChecks: [], suspects: [], localTargets: [], problems: [] }

export type BalanceInput = {
  readonly cluster: Cluster
  readonly here: Here
  /** All but those left to other proxies, unless told otherwise. */
  readonly selection?: ServiceSelection
  readonly health?: Health | undefined
  readonly paths?: Paths | undefined
}

type Own = Pick<ServiceFrontends, 'service'>
export const byService = (a: Own, b: Own): number => byName(a.service, b.service)

/** Remembers what it made: the next call costs what changed, and gives what a new one would give. */
export function createBalancer(): (input: BalanceInput) => Balance {
  const allowed = new SortedItems<Own, ServiceBalance>(byService)
  /** As they would be if nobody else claimed a part of it: of the few where somebody does. */
  const whole = new Map<string, ServiceBalance>()
  /** What was said against endpoints, or about the ways there, where anything was. */
  const said = new Map<string, string>()
  const claims = new Claims()
  /** Those that have more to say than frontends: few. */
  const notable = new Map<string, ServiceBalance>()
  let last: BalanceInput | undefined
  let extras: Omit<Balance, 'services'> = { healthChecks: [], suspects: [], localTargets: [], problems: [] }

  const wholeOf = (service: string) => whole.get(service) ?? allowed.get({ service })
  /** @returns the services whose rights may have changed with it. */
  const replace = (service: string, now: ServiceBalance | undefined): readonly string[] => {
    const before = wholeOf(service)
    if (before === now) return []
    whole.delete(service)
    if (now === undefined) {
      allowed.delete({ service })
      said.delete(service)
      notable.delete(service)
    } else allowed.set(now)
    return [service, ...claims.replace(service, before, now)]
  }
  const settle = (service: string): void => {
    const own = wholeOf(service)
    if (own === undefined) return
    const now = claims.allowed(own)
    if (now === own) whole.delete(service)
    else whole.set(service, own)
    allowed.set(now)
    if (isNotable(now)) notable.set(service, now)
    else notable.delete(service)
  }

  return (input) => {
    const { cluster, here, selection = 'all', health, paths } = input
    const touched = new Set<string>()
    const look = (service: ClusterService, isNew: boolean): void => {
      const key = keyOf(service)
      const isServed = service.kind === 'virtual' && service.served[selection]
      const sayings = isServed ? sayingsOf(service, input) : ''
      if (!isNew && sayings === (said.get(key) ?? '')) return
      if (sayings === '') said.delete(key)
      else said.set(key, sayings)
      for (const other of replace(key, isServed ? frontendsOf(service, { here, health, paths }) : undefined))
        touched.add(other)
    }
    for (const [had, now] of changesBetween(last?.cluster.services ?? EMPTY, cluster.services, compareNames))
      if (now !== undefined) look(now, true)
      else for (const other of replace(keyOf(had!), undefined)) touched.add(other)
    const sameGround =
      last?.here === here && last.selection === input.selection && (last.paths === undefined) === (paths === undefined)
    if (last !== undefined && !(sameGround && last.health === health && last.paths === paths))
      for (const service of cluster.services) look(service, !sameGround)

    for (const service of touched) settle(service)
    if (touched.size > 0) extras = extrasOf(notable, claims)
    last = input
    return { services: allowed.list(), ...extras }
  }
}

const keyOf = ({ namespace, name }: ClusterService) => `${namespace}/${name}`

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

/** What speaks against endpoints of a service, and the ways there that are not direct. */
function sayingsOf({ endpoints }: ClusterService, { health, paths }: BalanceInput): string {
  let sayings = ''
  endpoints.forEach(({ address, node, ports }, i) => {
    const path = node === undefined ? 'direct' : paths?.(node)
    if (paths !== undefined && path !== 'direct') sayings += `${i} ${path};`
    if (health === undefined) return
    for (const { port, protocol } of ports) {
      const reason = health(address, port, node, protocol)
      if (reason !== undefined) sayings += `${i} ${protocol} ${port} ${reason};`
    }
  })
  return sayings
}
