// The gateway on its pool's LAN, over one authenticated port: the election with the other gateways, and which nodes of the
// pool are alive, which the active one tells agents and other pools.

import type { Pool } from '../lib/k8s/pools.ts'
import type { Log } from '../lib/log.ts'
import { openLanChannel } from '../lib/net/lan-channel.ts'
import type { NodeIdentity } from '../lib/net/identity.ts'
import { DEVICES } from '../lib/owned.ts'
import type { OtherSender } from './echo-server.ts'
import type { Elections } from './election-loop.ts'
import type { PathFinding } from './findings.ts'
import type { Mesh } from './mesh-loop.ts'
import { runNeighbours, type Neighbours } from './neighbours-loop.ts'
import type { RoleKeeper } from './role-loop.ts'
import type { GatewayState } from './state-loop.ts'

export type GatewayLan = { readonly elections: Elections; readonly neighbours: Neighbours }

export function openGatewayLan(
  options: {
    readonly identity: NodeIdentity
    /** Of gateways; agents have the next. */
    readonly port: number
    readonly state: Pick<GatewayState, 'boot' | 'election' | 'keepElection'>
    readonly roles: RoleKeeper
    readonly pools: () => readonly Pool[]
    readonly mesh: Mesh
    readonly paths: () => readonly PathFinding[]
    readonly echoes: OtherSender
    /** Our role is another: others are told. */
    readonly tellRole: () => void
    /** Whether our node's agent still follows another gateway. */
    readonly isOverruled: () => Promise<boolean>
    /** Ends that where the agent is not there to do it. */
    readonly overrule: () => Promise<void>
    readonly log: Log
  },
  signal: AbortSignal,
): GatewayLan {
  const { identity, port, state, roles, pools, mesh, log } = options
  const { node } = identity
  const pool = (): Pool | undefined => elections.pool()

  const lan = openLanChannel(
    {
      identity,
      node,
      source: 'gateway',
      ownPool: () => pool()?.name,
      port,
      boot: state.boot,
      isMember: (name, { kind }) =>
        kind === 'presence'
          ? pool()?.nodes.some((member) => member.name === name) === true
          : name !== node && pool()?.gateways.includes(name) === true,
      onMessage: (said) => (said.kind === 'heartbeat' ? elections.heard(said) : neighbours.heard(said)),
      log,
    },
    signal,
  )
  const elections = roles.elect(mesh, options.tellRole, {
    node,
    lan,
    port,
    findings: () => neighbours.findings(),
    kept: state.election,
    keep: state.keepElection,
    isOverruled: options.isOverruled,
    overrule: options.overrule,
    log,
  })
  const neighbours = runNeighbours(
    {
      node,
      lan,
      agentPort: port + 1,
      pool,
      pools,
      poolAt: (from) => mesh.plan()?.peers.find((peer) => !peer.standby && peer.linkLocal === from)?.pool,
      isActive: () => roles.own()?.active === true,
      paths: options.paths,
      tell: (datagram) => {
        for (const peer of mesh.plan()?.peers ?? []) {
          const rung = mesh.rungOf(peer.node)
          if (rung !== undefined) options.echoes.sendOther(DEVICES[rung], peer.linkLocal, datagram)
        }
      },
      log,
    },
    signal,
  )
  return { elections, neighbours }
}
