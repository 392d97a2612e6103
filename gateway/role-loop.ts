// What this gateway is in its pool and who is active in the others: the election's outcome made true here, and told.

import { pause } from '../lib/net/lifetime.ts'
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

/**
 * How long routes stay after the role is gone: agents hear of the other gateway at their own pace, and ours may be away for
 * a moment. Other pools hear us for as long (gateway/handover-loop.ts).
 */
const LINGER_MS = 1_000
const LINGER_MAX_MS = 10_000
const LOOK_MS = 100

export function createRoleKeeper(signal: AbortSignal): RoleKeeper {
  const roles = new Roles()
  let own: Role | undefined
  /** In this process, and not only by what a predecessor left in the kernel. */
  let wasActive = false
  /** Since we are not active, or were not when we began. */
  let lingering: AbortController | undefined

  const linger = async (mesh: Mesh, isOverruled: () => Promise<boolean>): Promise<void> => {
    lingering?.abort()
    const over = (lingering = new AbortController())
    const ended = AbortSignal.any([signal, over.signal])
    const endMs = performance.now() + LINGER_MAX_MS
    await pause(LINGER_MS, ended)
    while (!ended.aborted && performance.now() < endMs && !(await isOverruled().catch(() => false)))
      await pause(LOOK_MS, ended)
    if (ended.aborted) return
    lingering = undefined
    mesh.trigger()
  }

  return {
    own: () => own,
    view: () =>
      own && {
        active: own.active,
        routed: own.active || (lingering !== undefined && wasActive),
        kept: lingering !== undefined && !wasActive,
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
            if (active) {
              lingering?.abort()
              lingering = undefined
            } else if (own?.active !== false) {
              wasActive = own?.active === true
              void linger(mesh, options.isOverruled)
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
