// The mesh's routing table as one daemon wants its part of it: the rule before main, nexthop objects and routes of its own
// protocol number. Whatever someone else removes or changes of that is back within a second; nothing is removed at the end.

import type { Log } from '../log.ts'
import {
  CARRIERS,
  NEXTHOP_BASE,
  NEXTHOP_RANGE,
  NUMBERS,
  RETURN_RULE_PRIORITY,
  RETURN_TABLE,
  ROUTE_TABLE,
  RULE_PRIORITY,
  WIREGUARD_MARK,
  WIREGUARD_MARK_MASK,
  type Numbers,
} from '../owned.ts'
import { planRouteSteps, routeText, type Nexthop, type RouteState, type RouteStep, type Rule } from '../routes.ts'
import { removeFormer } from './former-numbers.ts'
import { Netlink, NetlinkError, type Link, type LinkAddress, type NetlinkEvent } from './netlink.ts'
import { createUpkeep } from './upkeep.ts'

export type RouteTable = {
  /** For single messages that cannot wait for a pass; call `interrupt` first. */
  readonly netlink: Netlink
  /** A pass that runs stops before its next step and begins again. */
  interrupt(): void
  /** Runs a pass now. @throws RoutesError where something could not be set; it is tried again by itself. */
  apply(): Promise<void>
  /**
   * What is wanted has become another: takes the steps from what the kernel is known to have, without a look at all of it.
   * @returns false where `apply` is needed, since a step failed or something else came in between.
   */
  change(before: RouteState, after: RouteState): Promise<boolean>
}
export type RouteTableOptions = {
  readonly protocol: number
  readonly numbers?: Numbers | undefined
  /** What is wanted on a node with these devices and addresses; asked in every pass. `undefined`: nothing is known yet. */
  readonly plan: (
    links: readonly Link[],
    addresses: readonly LinkAddress[],
  ) => RouteState | undefined | Promise<RouteState | undefined>
  /** Notices of devices and addresses that may change the plan or have taken routes with them. */
  readonly concerns: (event: NetlinkEvent & { kind: 'link' | 'address' }) => boolean
  /** Notices of routes that are not in the mesh's tables. */
  readonly concernsRoute?: (event: NetlinkEvent & { kind: 'route' }) => boolean
  /** Notices of rules that are not the mesh's. */
  readonly concernsRule?: (event: NetlinkEvent & { kind: 'rule' }) => boolean
  /** Called when all is as wanted. */
  readonly onApplied?: () => Promise<void>
  readonly log: Log
}

/** Routes, nexthops or rules that the kernel refused; `cause` is the first refusal. */
export class RoutesError extends Error {
  readonly code = 'FULMAR_ROUTES'
  override readonly name = 'RoutesError'
}

/**
 * What comes in over the mesh goes on to pods of this pool by a table that nothing else is looked up in: a CNI may have
 * another way to them, which it keeps for its own packets, and whose reverse-path filter would drop ours.
 */
export const MESH_RULES: readonly Rule[] = ([4, 6] as const).flatMap((family) => [
  ...Object.values(CARRIERS).map((arrivedOn) => ({
    family,
    priority: RETURN_RULE_PRIORITY,
    table: RETURN_TABLE,
    invert: false,
    mark: 0,
    mask: 0,
    arrivedOn,
  })),
  {
    family,
    priority: RULE_PRIORITY,
    table: ROUTE_TABLE,
    invert: true,
    mark: WIREGUARD_MARK,
    mask: WIREGUARD_MARK_MASK,
  },
])

/** On a node with both daemons, what one of them changes is a notice for the other, which looks at the whole table. */
const REST = 4

export function openRouteTable(options: RouteTableOptions, signal: AbortSignal): RouteTable {
  const { protocol, numbers = NUMBERS, plan, concerns, concernsRoute, concernsRule, onApplied, log } = options
  const netlink = new Netlink(numbers)
  const isOwn = (nexthop: Nexthop) => nexthop.protocol === protocol && isMeshNexthop(nexthop)
  let generation = 0
  /** Whether what is left of other numbers has been looked for. */
  let cleared = false

  /** @returns false where it was interrupted. */
  const attempt = async (): Promise<boolean> => {
    const started = generation
    await ensureRules(netlink)
    const wanted = await plan(await netlink.links(), await netlink.addresses())
    if (wanted === undefined) return true
    const routes = (await netlink.routes([protocol])).filter(isMeshRoute)
    const nexthops = (await netlink.nexthops()).filter(isOwn)
    const failures: { step: RouteStep; error: unknown }[] = []
    for (const step of planRouteSteps({ nexthops, routes }, wanted)) {
      if (generation !== started) return false
      await takeStep(netlink, step).catch((error: unknown) => failures.push({ step, error }))
    }
    if (failures.length > 0) throw failureOf(failures)
    // Once all is there with the present numbers.
    if (!cleared) for (const former of await removeFormer(numbers, [protocol])) log.info({ former }, 'removed')
    cleared = true
    await onApplied?.()
    return true
  }
  const pass = async (): Promise<void> => {
    while (!(await attempt()) && !signal.aborted);
  }

  const upkeep = createUpkeep(
    {
      pass,
      onError: (err) => log.error({ err }, 'routes are not as wanted'),
      onEnd: () => netlink.close(),
      rest: REST,
    },
    signal,
  )
  netlink.watch((event) => {
    if (isOurs(event)) upkeep.trigger()
  })

  function isOurs(event: NetlinkEvent): boolean {
    switch (event.kind) {
      case 'link':
      case 'address':
        return concerns(event)
      case 'route':
        // Of any protocol: somebody's route may have replaced ours.
        return isMeshRoute(event) || concernsRoute?.(event) === true
      case 'nexthop':
        return isMeshNexthop(event)
      case 'rule':
        return isMeshRoute(event) || concernsRule?.(event) === true
      case 'lost':
        return true
    }
  }

  return {
    netlink,
    interrupt: () => void generation++,
    apply: () => {
      generation++
      return upkeep.now()
    },
    async change(before, after) {
      const started = ++generation
      try {
        for (const step of planRouteSteps(before, after)) {
          if (generation !== started) return false
          await takeStep(netlink, step)
        }
      } catch (error) {
        if (!(error instanceof NetlinkError)) throw error
        return false
      }
      return generation === started
    },
  }
}

export function isMeshNexthop({ id }: { readonly id: number }): boolean {
  return id >= NEXTHOP_BASE && id < NEXTHOP_BASE + NEXTHOP_RANGE
}

export const isMeshRoute = ({ table }: { readonly table: number }): boolean =>
  table === ROUTE_TABLE || table === RETURN_TABLE

export function isMeshRule({ table, priority }: Rule): boolean {
  return (
    (table === ROUTE_TABLE && priority === RULE_PRIORITY) ||
    (table === RETURN_TABLE && priority === RETURN_RULE_PRIORITY)
  )
}

/** The rule is the agent's and the gateway's alike: whoever comes first adds it. A variant of it goes. */
async function ensureRules(netlink: Netlink): Promise<void> {
  const present = (await netlink.rules()).filter(isMeshRule)
  for (const rule of MESH_RULES) if (!present.some((other) => sameRule(rule, other))) await netlink.addRule(rule)
  for (const rule of present) if (!MESH_RULES.some((wanted) => sameRule(wanted, rule))) await netlink.removeRule(rule)
}

const sameRule = (a: Rule, b: Rule) =>
  a.family === b.family &&
  a.table === b.table &&
  a.invert === b.invert &&
  a.mark === b.mark &&
  a.mask === b.mask &&
  a.arrivedOn === b.arrivedOn

function takeStep(netlink: Netlink, step: RouteStep): Promise<void> {
  switch (step.kind) {
    case 'replace-nexthop':
      return netlink.replaceNexthop(step.nexthop)
    case 'replace-route':
      return netlink.replaceRoute(step.route)
    case 'remove-route':
      return netlink.removeRoute(step.route)
    case 'remove-nexthop':
      return netlink.removeNexthop(step.nexthop)
  }
}

function failureOf(failures: readonly { readonly step: RouteStep; readonly error: unknown }[]): RoutesError {
  const { step, error } = failures[0]!
  const subject = 'route' in step ? routeText(step.route) : `nexthop ${step.nexthop.id}`
  const more = failures.length > 1 ? ` and ${failures.length - 1} more` : ''
  return new RoutesError(`${subject}${more}: ${(error as Error).message}; tried again until it works`, { cause: error })
}
