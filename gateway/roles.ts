// Which gateway of another pool is active, from what its gateways say: in their signed announcements, which the relay
// carries and the disk keeps, and in role messages and echoes inside WireGuard's devices, which need no cloud. The two
// come in any order; the term tells which is the later. Pure.

import type { Pool } from '../lib/k8s/pools.ts'
import { isStronger } from '../lib/lan.ts'

export type Role = { readonly active: boolean; readonly term: number }

export class Roles {
  readonly #roles = new Map<string, Role & { readonly issuedMs: number }>()

  /**
   * @param issuedMs of the certificate that vouches for it, where that is known: a node that lost its disk joins anew, and
   * its terms with it. @returns whether it is news.
   */
  learn(node: string, role: Role, issuedMs?: number): boolean {
    const known = this.#roles.get(node)
    const renewed = issuedMs !== undefined && issuedMs > (known?.issuedMs ?? 0)
    if (known !== undefined && !isLater(role, known)) {
      if (!renewed) return false
      // A renewal of the certificate that changes nothing.
      if (known.term === role.term && known.active === role.active) {
        this.#roles.set(node, { ...known, issuedMs })
        return false
      }
    }
    this.#roles.set(node, { ...role, issuedMs: issuedMs ?? known?.issuedMs ?? 0 })
    return true
  }

  of(node: string): Role | undefined {
    return this.#roles.get(node)
  }

  /**
   * The strongest claim counts, and where nobody claims anything the order of the objects, of those that are there. A
   * claim counts for the pool that the objects have its gateway in, and for no other.
   */
  activeOf({ gateways }: Pool, isThere: (node: string) => boolean): string | undefined {
    const there = gateways.filter(isThere)
    const claims = there.flatMap((node) => {
      const role = this.#roles.get(node)
      return role?.active === true ? [{ node, term: role.term, priority: gateways.indexOf(node) }] : []
    })
    const [first, ...others] = claims
    if (first !== undefined) return others.reduce((best, claim) => (isStronger(claim, best) ? claim : best), first).node
    return there.find((node) => this.#roles.get(node) === undefined) ?? there[0]
  }
}

/** Within a term a gateway can lose the role and not win it: winning begins a higher one. */
const isLater = (a: Role, b: Role): boolean => a.term > b.term || (a.term === b.term && b.active && !a.active)
