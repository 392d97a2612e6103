// What this gateway is in its pool and who is active in the others: the election's outcome made true here, and told.

import { runElection, type Elections } from './election-loop.ts'
import type { Mesh, MeshRoles } from './mesh-loop.ts'
import { Roles, type Role } from './roles.ts'

export type RoleKeeper = {
  /** Ours; undefined while it is not decided. */
  readonly own: () => Role | undefined
  /** Ours and the others' as the mesh needs them. */
  readonly view: () => MeshRoles | undefined
  /** What a gateway says of itself. @param certifiedMs of its announcement. @returns whether it is news. */
  readonly learn: (node: string, role: Role | undefined, certifiedMs?: number) => boolean
  /** See Roles. */
  readonly handOver: Roles['handOver']
  readonly forgetHandOver: Roles['forgetHandOver']
  /** Takes part in the pool's election from now on. @param tell says to others what we are. */
  readonly elect: (
    mesh: Mesh,
    tell: () => void,
    options: Omit<Parameters<typeof runElection>[0], 'onStanding'>,
  ) => Elections
}

/** How long routes stay after the role is gone: agents hear of the other gateway at their own pace. */
const LINGER_MS = 1_000

export function createRoleKeeper(signal: AbortSignal): RoleKeeper {
  const roles = new Roles()
  let own: Role | undefined
  let routedUntilMs = -Infinity

  return {
    own: () => own,
    view: () =>
      own && {
        active: own.active,
        routed: own.active || performance.now() < routedUntilMs,
        activeOf: (pool, isThere) => roles.activeOf(pool, isThere),
        hasJustLeft: (node) => roles.hasJustLeft(node),
      },
    learn: (node, role, certifiedMs) => role !== undefined && roles.learn(node, role, certifiedMs),
    handOver: (node, successor) => roles.handOver(node, successor),
    forgetHandOver: (node) => roles.forgetHandOver(node),
    elect: (mesh, tell, options) =>
      runElection(
        {
          ...options,
          onStanding: async ({ role, term }) => {
            const active = role === 'active'
            if (own?.active === true && !active) {
              routedUntilMs = performance.now() + LINGER_MS
              setTimeout(mesh.trigger, LINGER_MS + 1).unref()
            }
            own = { active, term }
            tell()
            if (active) await mesh.take()
            else mesh.trigger()
          },
        },
        signal,
      ),
  }
}
