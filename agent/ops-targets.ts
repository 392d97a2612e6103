// What the cloud may reach through this node: its kubelet, and what the node's operator declared. Checked by the address
// that is dialled, after names were resolved: whoever answers for a name decides nothing.

import { isIP } from 'node:net'
import { canonicalAddress } from '../lib/address.ts'
import { contains, covering, parseCidr, type Cidr } from '../lib/cidr.ts'
import { list } from '../lib/config.ts'

/** Who dials a kubelet by its node's name at the relay's port for them knows no other. */
const ANY_KUBELET_PORT = 10250
/** Of those that a refusal tells. */
const MAX_NAMES = 8

export type OpsTarget = {
  /** What the cloud may ask for it by, whatever the port that it asks for. */
  readonly name?: string
  /** In lower case; `localhost` for the node itself. */
  readonly host: string
  readonly port: number
  /** Where the name may lead on the LAN; absent: nowhere there. */
  readonly within?: Cidr
}

export type OpsPolicy = {
  readonly node: string
  readonly kubeletPort: number
  readonly targets: readonly OpsTarget[]
}

export type Destination =
  /** A port of the node itself, at whichever of its addresses it listens. */
  | { readonly kind: 'node'; readonly port: number }
  | { readonly kind: 'address'; readonly address: string; readonly port: number }
  /** To be resolved; then `reasonAgainst` judges each address. */
  | { readonly kind: 'name'; readonly target: OpsTarget; readonly port: number }
  | { readonly kind: 'refused'; readonly reason: string }

/** All of a node. @throws Error saying what is wrong. */
export function parseTargets(text: string): readonly OpsTarget[] {
  const targets = list(parseTarget)(text)
  const names = targets.flatMap(({ name }) => name ?? [])
  const twice = names.find((name, index) => names.indexOf(name) !== index)
  if (twice !== undefined) throw new Error(`${twice} is the name of two of them`)
  return targets
}

/**
 * `HOST:PORT`, `[IPV6]:PORT`, or `HOST:PORT@CIDR` for a host name that leads into the LAN; any with `NAME=` before it.
 * @throws Error saying what is wrong.
 */
export function parseTarget(text: string): OpsTarget {
  const [, name, where = ''] = /^(?:([^=]*)=)?(.*)$/.exec(text.trim()) ?? []
  if (name === undefined) return parsePlace(where)
  if (!/^[a-z0-9]([-a-z0-9]{0,61}[a-z0-9])?$/.test(name) || /^\d+$/.test(name))
    throw new Error(`${name} is no name such as console: lower case letters, digits and -`)
  return { name, ...parsePlace(where) }
}

function parsePlace(text: string): OpsTarget {
  const [, bracketed, plain, digits, prefix] =
    /^(?:\[([0-9a-f:.]+)\]|([^:@[\]/]+)):(\d{1,5})(?:@(.+))?$/i.exec(text) ?? []
  const host = (bracketed ?? plain ?? '').toLowerCase()
  const port = Number(digits)
  const within = prefix === undefined ? undefined : parseCidr(prefix)
  if (host === '' || !(port >= 1 && port <= 65535)) throw new Error(`${text} is not HOST:PORT`)
  if (prefix !== undefined && within === undefined) throw new Error(`${prefix} is no prefix such as 192.168.1.0/24`)
  if (bracketed !== undefined && isIP(bracketed) !== 6) throw new Error(`${bracketed} is no IPv6 address`)
  if (isIP(host) !== 0) {
    if (within !== undefined) throw new Error('has a prefix after an address')
    const reason = neverReason(canonicalAddress(host)!)
    if (reason !== undefined) throw new Error(`${host} is ${reason}, which is never dialled`)
    return { host: canonicalAddress(host)!, port }
  }
  if (!/^[a-z0-9_]([-.a-z0-9_]*[a-z0-9_])?$/.test(host)) throw new Error(`${host} is neither an address nor a name`)
  return { host, port, ...(within && { within }) }
}

/** @param own addresses of this node, in canonical text. */
export function destinationOf(policy: OpsPolicy, asked: string, port: number, own: readonly string[]): Destination {
  const { node, kubeletPort, targets } = policy
  const host = canonicalAddress(asked) ?? asked.toLowerCase()
  const isSelf = (name: string): boolean =>
    name === node.toLowerCase() || name === 'localhost' || isLoopback(name) || own.includes(name)
  const refused = { kind: 'refused', reason: refusalOf(`${host}:${port}`, targets) } as const
  if (isSelf(host)) {
    const declared = targets.some((target) => target.port === port && isSelf(target.host))
    if (port === kubeletPort || declared) return { kind: 'node', port }
    return port === ANY_KUBELET_PORT ? { kind: 'node', port: kubeletPort } : refused
  }
  const target =
    targets.find((each) => each.host === host && each.port === port) ?? targets.find(({ name }) => name === host)
  if (target === undefined) return refused
  if (isSelf(target.host)) return { kind: 'node', port: target.port }
  return isIP(target.host) === 0
    ? { kind: 'name', target, port: target.port }
    : { kind: 'address', address: target.host, port: target.port }
}

function refusalOf(asked: string, targets: readonly OpsTarget[]): string {
  const names = targets.flatMap(({ name }) => name ?? [])
  const declared = names.length === 0 ? '' : ` (${names.slice(0, MAX_NAMES).join(', ')})`
  return `${asked} is not open to the cloud here; --ops-targets of its agent declares what is${declared}`
}

/** Why a name's address is not dialled; undefined if it is. */
export function reasonAgainst({ host, within }: OpsTarget, address: string): string | undefined {
  const canonical = canonicalAddress(address)
  if (canonical === undefined) return `${address} is no address`
  const never = neverReason(canonical) ?? (isLoopback(canonical) ? 'a loopback address' : undefined)
  if (never !== undefined) return `${host} leads to ${canonical}, ${never}`
  if (within !== undefined)
    return contains(within, canonical) ? undefined : `${host} leads to ${canonical}, outside of ${within.text}`
  return isLan(canonical) ? `${host} leads into the LAN, to ${canonical}; declared as NAME:PORT@CIDR it may` : undefined
}

function neverReason(address: string): string | undefined {
  if (isMetadata(address)) return 'the metadata service of a cloud'
  if (isLinkLocal(address)) return 'a link-local address'
  return isSpecial(address) ? 'no address of a host' : undefined
}

const isLoopback = (address: string): boolean => isIP(address) !== 0 && loopback(address)
const loopback = covering(['127.0.0.0/8', '::1/128'])
const isLinkLocal = covering(['169.254.0.0/16', 'fe80::/10'])
/** Those of clouds that have theirs elsewhere than at link-local addresses. */
const isMetadata = covering(['169.254.169.254/32', 'fd00:ec2::254/128', '100.100.100.200/32', 'fd20:ce::254/128'])
/** Of this network, multicast, reserved; and IPv6 addresses that hide an IPv4 one (NAT64, 6to4). */
const isSpecial = covering([
  ...['0.0.0.0/8', '224.0.0.0/3', '::/128', 'ff00::/8'],
  ...['64:ff9b::/96', '64:ff9b:1::/48', '2002::/16'],
])
const isLan = covering(['10.0.0.0/8', '172.16.0.0/12', '192.168.0.0/16', '100.64.0.0/10', 'fc00::/7', 'fec0::/10'])
