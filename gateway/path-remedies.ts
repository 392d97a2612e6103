// What would have to change for a better path to a peer, as concrete as what is known of both sites allows: which router
// forwards which port to which host, which firewall lets what through, who lacks IPv6. Pure.

import { parseSocketAddress } from '../lib/address.ts'
import type { CandidateStatus, GatewayStatus, NatBehaviour, PathStatus, Remedies } from '../lib/status.ts'
import { obstacleOf } from './path-reason.ts'

export type OwnSide = Pick<GatewayStatus, 'node' | 'pool' | 'nat' | 'relay'> & {
  readonly candidates: readonly Pick<CandidateStatus, 'address' | 'kind'>[]
  readonly wireguardPort: number
}

type Site = {
  readonly pool: string
  readonly node: string
  readonly nat: NatBehaviour
  /** Where WireGuard listens inside the site, `ADDRESS port PORT`; the node's name where no address is known. */
  readonly host: string
  readonly hasIpv6: boolean
  /** What its router says that it forwards to the gateway. */
  readonly forwarded: string | undefined
}

/** A direct path, or a session over the relay's UDP, takes less than that to come up where it can. */
const GRACE_MS = 15_000

/** @returns undefined where the path is the best there is, or nothing is to be done yet. */
export function remediesOf(own: OwnSide, path: PathStatus, nowMs: number): Remedies | undefined {
  if (path.rung === 'direct' || path.rung === 'cold') return undefined
  if (path.rung === 'none') return one(reachRelay(own, path))
  const here: Site = { ...own, ...placeOf(own.node, own.candidates, own.wireguardPort) }
  const there: Site = { ...path, nat: path.peerNat ?? UNKNOWN, ...placeOf(path.node, path.candidates, undefined) }
  const settled = nowMs - path.since > GRACE_MS
  const relayUdp =
    path.rung === 'relay-tcp' && settled
      ? ['for relay-udp, let UDP through between both sites and the ports that `fulmar status` names on the relay']
      : []
  switch (obstacleOf(here.nat, there.nat)) {
    case 'udp-blocked': {
      const blocked = [here, there].filter(({ nat }) => nat.udp === 'blocked')
      const steps = blocked.map((site) => letOut(site, site === here ? there : here))
      return { need: 'all', steps }
    }
    case 'one-nat':
      return one([
        `let ${here.host} and ${there.host} reach each other behind their common NAT`,
        `turn on hairpinning (NAT loopback) on that NAT, ${addressOf(here.nat)}`,
        ...ipv6(here, there),
        ...relayUdp,
      ])
    case 'nats':
      return one([...admitAtEither(here, there), ...ipv6(here, there), ...relayUdp])
    case undefined:
      return settled ? unexplained(here, there, path, relayUdp) : undefined
  }
}

/** Nothing that is known of the NATs stands in the way, so some firewall does, or it has not been tried yet. */
function unexplained(
  here: Site,
  there: Site,
  { candidates }: PathStatus,
  relayUdp: readonly string[],
): Remedies | undefined {
  const refused = candidates.find(({ outcome }) => outcome === 'refused')
  if (refused !== undefined)
    return one([
      `let UDP through between ${here.host} and ${refused.address} whatever is in it, and up to 1500 bytes: probes pass, WireGuard does not`,
    ])
  if (!candidates.some(({ outcome }) => outcome === 'silent')) return undefined
  return one([
    `let UDP through between ${outside(here)} and ${outside(there)} in the firewalls of ${here.pool} and ${there.pool}`,
    ...admitAtEither(here, there),
    ...ipv6(here, there),
    ...relayUdp,
  ])
}

const UNKNOWN: NatBehaviour = { mapping: 'unknown', filtering: 'unknown', udp: 'unknown' }

const one = (steps: readonly string[]): Remedies => ({ need: 'one', steps })

/** No path at all: one of the two does not reach the relay, or does not run. */
function reachRelay({ node, relay }: OwnSide, path: PathStatus): readonly string[] {
  const { host } = new URL(relay.url)
  const port = host.includes(':') && !host.endsWith(']') ? host : `${host}:443`
  if (relay.state !== 'connected') return [`let ${node} reach the relay: TCP to ${port}`]
  return [`see that fulmar gateway runs on ${path.node}, and let it reach the relay: TCP to ${port}`]
}

function placeOf(
  node: string,
  candidates: readonly Pick<CandidateStatus, 'address' | 'kind'>[],
  port: number | undefined,
): Pick<Site, 'host' | 'hasIpv6' | 'forwarded'> {
  const hosts = candidates
    .filter(({ kind }) => kind === 'host')
    .map(({ address }) => parseSocketAddress(address))
    .filter((address) => address !== undefined)
  const found = hosts.find(({ family }) => family === 4)
  const where = port === undefined ? node : `${node} port ${port}`
  return {
    host: found === undefined ? where : `${found.address} port ${found.port}`,
    forwarded: candidates.find(({ kind, address }) => kind === 'mapped' && !address.startsWith('['))?.address,
    hasIpv6: hosts.some(({ address }) => /^[23]/.test(address) && address.includes(':')),
  }
}

const addressOf = ({ mapped }: NatBehaviour): string => parseSocketAddress(mapped ?? '')?.address ?? 'unknown'
const outside = ({ nat, host }: Site): string => nat.mapped ?? host

function letOut({ pool, host }: Site, other: Site): string {
  const direct = other.nat.mapped === undefined ? 'its peers' : other.nat.mapped
  return `in the firewall of ${pool}, let UDP out from ${host}: to the relay for relay-udp, to ${direct} for a direct path`
}

/** A peer knows where a forwarded port is if the NAT maps it alike for everybody; so that site comes first. */
function admitAtEither(here: Site, there: Site): readonly string[] {
  const sites = [here, there].toSorted((a, b) => Number(isHard(a)) - Number(isHard(b)))
  const mappable = sites.filter(({ nat, forwarded }) => nat.mapping !== 'none' && forwarded === undefined)
  const routers = mappable.map(({ pool }) => pool).join(' or ')
  return [
    ...sites.map(admit),
    ...(mappable.length === 0
      ? []
      : [`turn on PCP or NAT-PMP on the router of ${routers}: the gateway there has it forward a port by itself`]),
  ]
}

const isHard = ({ nat }: Site): boolean => nat.mapping.startsWith('address')

function admit(site: Site): string {
  const { pool, node, nat, host, forwarded } = site
  const mapped = nat.mapped === undefined ? undefined : parseSocketAddress(nat.mapped)
  if (nat.mapping === 'none') return `in the firewall of ${pool}, let UDP in to ${outside(site)}`
  if (forwarded !== undefined)
    return `have ${forwarded}, which the router of ${pool} forwards, let through by what stands before that router, too`
  if (isHard(site) || mapped === undefined)
    return `on the router of ${pool}, forward a UDP port to ${host}, and write it into Gateway ${pool} as publicIP and publicPort of ${node}`
  return `on the router of ${pool}, forward UDP port ${mapped.port} of ${mapped.address} to ${host}`
}

function ipv6(here: Site, there: Site): readonly string[] {
  const [lacking, having] = [
    [here, there].filter((site) => !site.hasIpv6),
    [here, there].filter((site) => site.hasIpv6),
  ]
  if (lacking.length === 0) return []
  const known = having.map(({ pool }) => `, which ${pool} has`).join('')
  return [`give ${lacking.map(({ node, pool }) => `${node} at ${pool}`).join(' and ')} public IPv6${known}`]
}
