// Which gateway of another pool is active, from what its gateways say: in their signed announcements, which the relay
// carries and the disk keeps, and in role messages and echoes inside WireGuard's devices, which need no cloud. The two
// come in any order; the term tells which is the later. Pure.

import type { Pool } from '../lib/k8s/pools.ts'
import { isStronger } from '../lib/lan.ts'

export type Role = { readonly active: boolean; readonly term: number }

export class Roles {
  readonly #roles = new Map<string, Role & { readonly issuedMs: number }>()
  /** By the gateway that leaves, or left a moment ago: who follows it, and the term that it leaves in. */
  readonly #successors = new Map<string, { readonly node: string | undefined; readonly term: number | undefined }>()

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
   * A gateway hands its role over: in the term that it has now, its successor counts in its place.
   * @param successor undefined where it has its own claim by now, or does not come.
   */
  handOver(node: string, successor: string | undefined): void {
    this.#successors.set(node, { node: successor, term: this.#roles.get(node)?.term })
  }

  forgetHandOver(node: string): void {
    this.#successors.delete(node)
  }

  /** Packets of its pool may still come from it. */
  hasJustLeft(node: string): boolean {
    return this.#successors.has(node)
  }

  /**
   * The strongest claim counts, and where nobody claims anything the order of the objects, of those that are there. A
   * claim counts for the pool that the objects have its gateway in, and for no other.
   */
  activeOf({ gateways }: Pool, isThere: (node: string) => boolean): string | undefined {
    const there = gateways.filter(isThere)
    const claimant = this.#claimant(gateways, there)
    const successor = claimant === undefined ? undefined : this.#successors.get(claimant)
    const counts = successor?.term === this.#roles.get(claimant ?? '')?.term && there.includes(successor?.node ?? '')
    return counts ? successor?.node : claimant
  }

  #claimant(gateways: readonly string[], there: readonly string[]): string | undefined {
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
