// The numbers of lib/owned stand for what they are on this node: plans know the former, the kernel the latter, and each
// message is put from one to the other as it passes.

import {
  RETURN_RULE_PRIORITY,
  RETURN_TABLE,
  ROUTE_TABLE,
  RULE_PRIORITY,
  WIREGUARD_MARK,
  WIREGUARD_MARK_MASK,
  type Numbers,
} from '../owned.ts'
import type { Rule } from '../routes.ts'

export type Renumbering = {
  readonly toKernel: Renumber
  readonly fromKernel: Renumber
  /** A mark of a packet. */
  readonly mark: (mark: number) => number
}
type Renumber = {
  table<T extends { readonly table: number }>(item: T): T
  rule(rule: Rule): Rule
}

export function renumbering(numbers: Numbers): Renumbering {
  const tables = [
    [ROUTE_TABLE, numbers.routeTable],
    [RETURN_TABLE, numbers.returnTable],
  ] as const
  const priorities = [
    [RULE_PRIORITY, numbers.rulePreference],
    [RETURN_RULE_PRIORITY, numbers.returnPreference],
  ] as const
  const marks = [[WIREGUARD_MARK, numbers.mark]] as const
  const masks = [[WIREGUARD_MARK_MASK, numbers.markMask]] as const
  return {
    toKernel: renumber(forward(tables), forward(priorities), forward(marks), forward(masks)),
    fromKernel: renumber(backward(tables), backward(priorities), backward(marks), backward(masks)),
    mark: forward(marks),
  }
}

type Pairs = readonly (readonly [ours: number, here: number])[]
type Map1 = (value: number) => number

const forward =
  (pairs: Pairs): Map1 =>
  (value) =>
    pairs.find(([ours]) => ours === value)?.[1] ?? Math.abs(value)

/** A number that is ours by default, and somebody else's here, is no number of ours: it is below zero until it goes back. */
const backward =
  (pairs: Pairs): Map1 =>
  (value) =>
    pairs.find(([, here]) => here === value)?.[0] ?? (pairs.some(([ours]) => ours === value) ? -value : value)

function renumber(table: Map1, priority: Map1, mark: Map1, mask: Map1): Renumber {
  return {
    table: (item) => {
      const number = table(item.table)
      return number === item.table ? item : { ...item, table: number }
    },
    rule: (rule) => ({
      ...rule,
      table: table(rule.table),
      priority: priority(rule.priority),
      mark: mark(rule.mark),
      mask: mask(rule.mask),
    }),
  }
}
