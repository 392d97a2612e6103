// All that the way to nodes costs, one question after the other: each can be asked alone by its own name.

import { question as idle } from './ops-idle.ts'
import { question as stalled } from './ops-stalled.ts'
import { question as throughput } from './ops-throughput.ts'
import { together } from './harness/together.ts'
import type { Study } from './harness/question.ts'

export const question: Study = together(
  'What does the way of kubectl to nodes cost: throughput, beside streams that stall, and with 10,000 idle agents?',
  { 'ops-throughput': throughput, 'ops-stalled': stalled, 'ops-idle': idle },
)
