// Which service answers where two want the same address, or the same port of one: the first by namespace and name, so that
// all nodes agree. A ClusterIP belongs to one service with all its ports; ports of other addresses may be shared out. Only
// what changed is looked at again.

import type { Frontend, ServiceFrontends } from './frontends.ts'

/** Services by claim: one, or several in order. */
export class Claims {
  readonly #holders = new Map<string, readonly string[]>()
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
      const [first, ...others] = this.#holders.get(claim)!
      const [kind, address, protocol, port] = claim.split(' ')
      const owner = this.#holders.get(`ip ${address}`)?.[0]
      switch (kind) {
        case 'ip':
          return `ClusterIP ${address} is claimed by services ${[first, ...others].join(' and ')}: the first gets it; give each Service its own`
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
    const owner = this.#first(`ip ${address}`)
    if (kind === 'cluster-ip') return owner === service
    return (owner === undefined || owner === service) && this.#first(`at ${address} ${protocol} ${port}`) === service
  }

  #first = (claim: string): string | undefined => this.#holders.get(claim)?.[0]

  #set(claim: string, service: string, holds: boolean): readonly string[] {
    const before = this.#holders.get(claim) ?? []
    const others = before.filter((other) => other !== service)
    const after = !holds ? others : others.length === 0 ? [service] : [...others, service].sort(byName)
    if (after.length > 0) this.#holders.set(claim, after)
    else this.#holders.delete(claim)
    this.#contest(claim)
    const [kind, address] = claim.split(' ')
    if (kind !== 'ip') return kind === 'use' ? [] : others
    // Who has the address as an external one gives way to a ClusterIP.
    this.#contest(`use ${address}`)
    return [...others, ...(this.#holders.get(`use ${address}`) ?? [])]
  }

  #contest(claim: string): void {
    const holders = this.#holders.get(claim) ?? []
    const [kind, address] = claim.split(' ')
    const owner = kind === 'use' ? this.#first(`ip ${address}`) : undefined
    const contested =
      kind === 'use' ? owner !== undefined && holders.some((holder) => holder !== owner) : holders.length > 1
    if (contested) this.#contested.add(claim)
    else this.#contested.delete(claim)
  }
}

/** `ip` is exclusive, `at` and `port` are so for one protocol and port, `use` is not. */
function claimsOf(raw: ServiceFrontends | undefined): ReadonlySet<string> {
  const claims = new Set<string>()
  for (const { kind, family, address, protocol, port } of raw?.frontends ?? [])
    switch (kind) {
      case 'cluster-ip':
        claims.add(`ip ${address}`)
        break
      case 'node-port':
        claims.add(`port ${family} ${protocol} ${port}`)
        break
      case 'external-ip':
      case 'load-balancer':
        claims.add(`use ${address}`)
        claims.add(`at ${address} ${protocol} ${port}`)
        break
    }
  return claims
}

/** By namespace, then name: a namespace that begins another one comes before it. */
export const byName = (a: string, b: string): number =>
  a === b ? 0 : a.replace('/', '\0') < b.replace('/', '\0') ? -1 : 1
