// Which replicas an agent dials and leaves, as a table.

import t from 'tap'
import { planReplicas } from '../../agent/ops-replicas.ts'

type Row = {
  readonly name: string
  readonly order?: string
  /** Upper case: connected; lower case: dialled. */
  readonly sessions?: string
  /** Of those that failed, at time 100. */
  readonly retry?: Readonly<Record<string, number>>
  readonly quiet?: number
  readonly dial?: string
  readonly leave?: string
  readonly again?: number
}

const rows: readonly Row[] = [
  { name: 'nothing known', order: '' },
  { name: 'one relay', order: 'A', dial: 'A' },
  { name: 'one relay, connected', order: 'A', sessions: 'A' },
  { name: 'the first two at once', dial: 'AB' },
  { name: 'one is under way', sessions: 'a', dial: 'B' },
  { name: 'both are there', sessions: 'AB' },
  { name: 'one failed: the third, and the first again later', sessions: 'B', retry: { A: 300 }, dial: 'C', again: 300 },
  { name: 'of two, one failed', order: 'AB', sessions: 'B', retry: { A: 300 }, again: 300 },
  { name: 'it is due', order: 'AB', sessions: 'B', retry: { A: 100 }, dial: 'A' },
  { name: 'the first is dialled again, the third stays', sessions: 'BC', retry: { A: 50 }, dial: 'A' },
  { name: 'and goes when the first is there', sessions: 'ABC', leave: 'C' },
  { name: 'not while it is only dialled', sessions: 'aBC' },
  { name: 'all failed', retry: { A: 300, B: 200, C: 400, D: 500 }, again: 200 },
  { name: 'who has one waits with the second', sessions: 'B', retry: { A: 90 }, quiet: 250, again: 250 },
  { name: 'who has none does not', sessions: 'b', retry: { A: 90 }, quiet: 250, dial: 'A' },
  {
    name: 'a relay that is not in the list any more stays until two are there',
    order: 'AB',
    sessions: 'XA',
    dial: 'B',
  },
  { name: 'and then goes', order: 'AB', sessions: 'XAB', leave: 'X' },
  { name: 'the list has one now', order: 'A', sessions: 'AB', leave: 'B' },
]

for (const { name, order = 'ABCD', sessions = '', retry = {}, quiet = 0, dial = '', leave = '', again } of rows)
  t.test(name, (t) => {
    const states = Array.from(sessions).map((letter) => ({
      replica: letter.toUpperCase(),
      connected: letter === letter.toUpperCase(),
    }))
    const plan = planReplicas(Array.from(order), states, new Map(Object.entries(retry)), quiet, 100)
    t.same(plan, { dial: Array.from(dial), leave: Array.from(leave), againMs: again ?? Infinity })
    t.end()
  })
