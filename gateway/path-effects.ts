// What paths ask of the rest of the gateway, done: endpoints and routes, calls and questions to peers, and a new look at
// the NAT where it may be another.

import type { Reachability } from './candidates-loop.ts'
import { isFall } from './ladder.ts'
import type { Mesh } from './mesh-loop.ts'
import type { registerMoves } from './metrics.ts'
import type { PathEffects } from './path-loop.ts'
import type { Relays } from './relays-loop.ts'
import type { RoleKeeper } from './role-loop.ts'

export function pathEffects(parts: {
  /** undefined until the devices are there. */
  readonly mesh: () => Mesh | undefined
  readonly reachability: () => Pick<Reachability, 'nat' | 'lookAgain'>
  readonly relays: Pick<Relays, 'signalling' | 'ask' | 'suspect'>
  readonly roles: Pick<RoleKeeper, 'learn'>
  /** Counts. */
  readonly moved: ReturnType<typeof registerMoves>
}): PathEffects {
  const { mesh, reachability, relays, roles, moved } = parts
  return {
    setEndpoint: async (peer, to) => mesh()?.setEndpoint('direct', peer, to),
    move: (peer, rung, mtu, from) => {
      moved(peer.pool, rung)
      mesh()?.move(peer, rung, mtu)
      // A path that fell may have met a new NAT or a firewall, and one over UDP lost it: people want to know.
      const passes = rung === 'direct' || rung === 'relay-udp'
      if (isFall(from, rung) || (passes && reachability().nat().udp === 'blocked')) reachability().lookAgain()
    },
    call: ({ node }, reply) => void relays.signalling.send({ kind: 'call', node, reply }),
    ask: ({ node }) => relays.ask(node),
    role: ({ node }, said) => roles.learn(node, said) && mesh()?.trigger(),
    suspect: ({ node }) => relays.suspect(node),
  }
}
