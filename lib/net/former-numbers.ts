// What is left in the kernel of another choice of numbers (lib/owned): a daemon that is started with another --route-table
// or --rule-preference leaves its former rules, and routes in the former tables. They are known by the rules for what comes
// in on our devices, which nobody else has.

import { CARRIERS, PROTOCOL_AGENT, PROTOCOL_GATEWAY, type Numbers } from '../owned.ts'
import { routeText, type Route, type Rule } from '../routes.ts'
import { Netlink } from './netlink.ts'

/** Of a choice of numbers before this one. */
export type Former = { readonly tables: readonly number[]; readonly rules: readonly Rule[] }

const DEVICES: ReadonlySet<string | undefined> = new Set(Object.values(CARRIERS))

/** @param rules all there are, with the kernel's own numbers. */
export function formerOf(rules: readonly Rule[], numbers: Numbers): Former {
  const returning = rules.filter(
    ({ arrivedOn, table, priority }) =>
      DEVICES.has(arrivedOn) && (table !== numbers.returnTable || priority !== numbers.returnPreference),
  )
  const choices = new Map(returning.map(({ table, priority }) => [`${table} ${priority}`, { table, priority }]))
  const leading = rules.filter(({ arrivedOn, invert, table, priority }) => {
    const isNow = table === numbers.routeTable && priority === numbers.rulePreference
    return arrivedOn === undefined && invert && !isNow && choices.has(`${table + 1} ${priority - 1}`)
  })
  const inUse = [numbers.routeTable, numbers.returnTable]
  const tables = [...choices.values()].flatMap(({ table }) => [table - 1, table])
  return {
    tables: [...new Set(tables)].filter((table) => !inUse.includes(table)),
    rules: [...leading, ...returning],
  }
}

/**
 * Removes the routes of these protocols from former tables, and the rules once no other daemon of ours has routes there.
 * @param protocols of whoever asks. @returns a line per thing removed.
 */
export async function removeFormer(numbers: Numbers, protocols: readonly number[]): Promise<readonly string[]> {
  const netlink = new Netlink()
  const removed: string[] = []
  try {
    const { tables, rules } = formerOf(await netlink.rules(), numbers)
    if (rules.length === 0) return []
    const routes = (await netlink.routes([PROTOCOL_AGENT, PROTOCOL_GATEWAY])).filter(({ table }) =>
      tables.includes(table),
    )
    const isOwn = ({ protocol }: Route) => protocols.includes(protocol)
    for (const route of routes.filter(isOwn)) {
      await netlink.removeRoute(route)
      removed.push(`route ${routeText(route)}`)
    }
    if (!routes.every(isOwn)) return removed
    for (const rule of rules) {
      await netlink.removeRule(rule)
      removed.push(ruleText(rule))
    }
  } finally {
    netlink.close()
  }
  return removed
}

/** @param rule with the kernel's own numbers. */
export const ruleText = ({ family, priority, table, arrivedOn }: Rule): string =>
  `rule ${priority} for table ${table}${arrivedOn === undefined ? '' : ` from ${arrivedOn}`} (IPv${family})`
