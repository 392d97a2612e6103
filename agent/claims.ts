// Which service answers where two want the same address, or the same port of one: the first by namespace and name, so that
// all nodes agree. A ClusterIP belongs to one service with all its ports; ports of other addresses may be shared out. Only
// what changed is looked at again.

import type { Frontend, ServiceFrontends } from './frontends.ts'

/** Services by claim. */
export class Claims {
  /** One, or several in order. */
  readonly #holders = new Map<string, string | readonly string[]>()
  readonly #contested = new Set<string>()

  /** @returns the services whose rights may have changed, the given one excepted. */
  replace(
    service: string,
    before: ServiceFrontends | undefined,
    after: ServiceFrontends | undefined,
  ): readonly string[] {
    const old = claimsOf(before)
    const wanted = claimsOf(after)
    const touched: string[] = []
    for (const claim of old) if (!wanted.has(claim)) touched.push(...this.#set(claim, service, false))
    for (const claim of wanted) if (!old.has(claim)) touched.push(...this.#set(claim, service, true))
    return touched
  }

  /** The same value where all is its own. */
  allowed<T extends ServiceFrontends>(raw: T): T {
    if (this.#contested.size === 0 || raw.frontends.every((frontend) => this.#owns(frontend))) return raw
    return { ...raw, frontends: raw.frontends.filter((frontend) => this.#owns(frontend)) }
  }

  problems(): readonly string[] {
    return [...this.#contested].sort().flatMap((claim) => {
      const [first, ...others] = this.#of(claim)
      const [kind, address, protocol, port] = claim.split(' ')
      const owner = this.#first(address ?? claim)
      if (address === undefined)
        return `ClusterIP ${claim} is claimed by services ${[first, ...others].join(' and ')}: the first gets it; give each Service its own`
      switch (kind) {
        case 'use':
          return [first!, ...others]
            .filter((service) => service !== owner)
            .map(
              (service) =>
                `service ${service}: external address ${address} is a ClusterIP of service ${owner}: it is left out; correct spec.externalIPs`,
            )
        case 'at':
          return `${protocol} port ${port} of ${address} is claimed by services ${[first, ...others].join(' and ')}: the first gets it; give each its own port or address`
        default:
          return `${protocol} NodePort ${port} is claimed by services ${[first, ...others].join(' and ')}: the first gets it; give each its own`
      }
    })
  }

  #owns({ service, kind, family, address, protocol, port }: Frontend): boolean {
    if (kind === 'node-port') return this.#first(`port ${family} ${protocol} ${port}`) === service
    const owner = this.#first(address!)
    if (kind === 'cluster-ip') return owner === service
    return (owner === undefined || owner === service) && this.#first(`at ${address} ${protocol} ${port}`) === service
  }

  #of(claim: string): readonly string[] {
    const holders = this.#holders.get(claim) ?? []
    return typeof holders === 'string' ? [holders] : holders
  }
  #first = (claim: string): string | undefined => this.#of(claim)[0]

  #set(claim: string, service: string, holds: boolean): readonly string[] {
    const others = this.#of(claim).filter((other) => other !== service)
    const [first, ...more] = holds ? [...others, service].sort(byName) : others
    if (first === undefined) this.#holders.delete(claim)
    else this.#holders.set(claim, more.length === 0 ? first : [first, ...more])
    this.#contest(claim)
    if (claim.includes(' ')) return claim.startsWith(USE) ? [] : others
    // Who has the address as an external one gives way to a ClusterIP.
    const uses = this.#of(USE + claim)
    if (uses.length === 0) return others
    this.#contest(USE + claim)
    return [...others, ...uses]
  }

  #contest(claim: string): void {
    const holders = this.#of(claim)
    const isUse = claim.startsWith(USE)
    const owner = isUse ? this.#first(claim.slice(USE.length)) : undefined
    const contested = isUse ? owner !== undefined && holders.some((holder) => holder !== owner) : holders.length > 1
    if (contested) this.#contested.add(claim)
    else this.#contested.delete(claim)
  }
}

const USE = 'use '

/** A ClusterIP, as itself, is exclusive; `at` and `port` are so for one protocol and port; `use` is not. */
function claimsOf(raw: ServiceFrontends | undefined): ReadonlySet<string> {
  const claims = new Set<string>()
  for (const { kind, family, address, protocol, port } of raw?.frontends ?? [])
    switch (kind) {
      case 'cluster-ip':
        claims.add(address!)
        break
      case 'node-port':
        claims.add(`port ${family} ${protocol} ${port}`)
        break
      case 'external-ip':
      case 'load-balancer':
        claims.add(USE + address)
        claims.add(`at ${address} ${protocol} ${port}`)
        break
    }
  return claims
}

/** By namespace, then name: a namespace that begins another one comes before it. */
export function byName(a: string, b: string): number {
  if (a === b) return 0
  const [i, j] = [a.indexOf('/'), b.indexOf('/')]
  // Of namespaces as long as each other the slash changes nothing.
  return (i === j ? a < b : a.slice(0, i) < b.slice(0, j)) ? -1 : 1
}
