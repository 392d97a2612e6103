// All that the tunnels cost, one question after the other: each can be asked alone by its own name.

import { question as direct } from './direct.ts'
import { question as idle } from './idle.ts'
import { question as portSharing } from './port-sharing.ts'
import { question as relayTcp } from './relay-tcp.ts'
import { question as relayUdp } from './relay-udp.ts'
import { together } from './harness/together.ts'
import type { Study } from './harness/question.ts'

export const question: Study = together(
  'What do the tunnels cost: direct, relay-udp, relay-tcp, their shared port, and a gateway that is idle?',
  { direct, 'relay-udp': relayUdp, 'relay-tcp': relayTcp, 'port-sharing': portSharing, idle },
)
