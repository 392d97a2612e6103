// rtnetlink: links, addresses, routes, nexthop objects, rules, and notices of their changes, as narrow typed functions.
// Requests of the library need care: a dump in progress is broken by any other answer on its socket, and a notice carries the
// sequence number of somebody else's request. So there are three sockets.

import { getSystemErrorName } from 'node:util'
import {
  createNetlink,
  Flags,
  FlagsGet,
  FlagsNew,
  parseError,
  Protocol,
  rt,
  type NetlinkMessage,
  type NetlinkSocket,
  type StreamData,
} from 'netlink'
import type { Family } from '../cidr.ts'
import { NUMBERS, type Numbers } from '../owned.ts'
import type { Nexthop, Route, Rule } from '../routes.ts'
import { renumbering, type Renumbering } from './numbers.ts'
import {
  addressBody,
  addressOf,
  encode,
  eventOf,
  hopBody,
  hopOf,
  isMainDefault,
  isMainSpecific,
  linkBody,
  linkOf,
  nexthopBody,
  nexthopIdBody,
  nexthopOf,
  ROUTE_PROTOCOL_OFFSET,
  routeBody,
  routeOf,
  ruleBody,
  ruleOf,
  type Hop,
  type Link,
  type LinkAddress,
  type NetlinkEvent,
} from './netlink-codec.ts'
import { afterRunning } from './patience.ts'
import { AF } from './sockaddr.ts'

export { TABLE_MAIN } from './netlink-codec.ts'
export type { Hop, Link, LinkAddress, NetlinkEvent } from './netlink-codec.ts'

/** A request that the kernel refused; `errno` is the name, e.g. EPERM. */
export class NetlinkError extends Error {
  readonly code = 'FULMAR_NETLINK'
  override readonly name = 'NetlinkError'
  readonly errno: string
  constructor(operation: string, errno: string, cause?: unknown) {
    const remedy = REMEDIES[errno]
    super(`${operation}: ${errno}${remedy === undefined ? '' : ` (${remedy})`}`, { cause })
    this.errno = errno
  }
}

const REMEDIES: Readonly<Record<string, string>> = {
  EPERM: 'needs root or CAP_NET_ADMIN',
  ENOTSUP: 'this kernel lacks the feature',
  ENETDOWN: 'the device is down',
  ETIMEDOUT: 'the kernel did not answer',
}

/** The kernel answers at once. */
const PATIENCE_MS = 5_000
/** After it the library forgets a request, too. */
const FORGET_MS = 60_000
/** A dump that a change interrupted is repeated, within reason. */
const DUMP_TRIES_MAX = 4
const MESSAGE_ERROR = 2
const TYPE = rt.MessageType
const REPLACE = FlagsNew.CREATE | FlagsNew.REPLACE
const CREATE = FlagsNew.CREATE | FlagsNew.EXCL

export class Netlink {
  readonly #numbers: Renumbering
  readonly #changes = open(false)
  readonly #dumps = open(false)
  #lastDump: Promise<unknown> = Promise.resolve()
  #events: NetlinkSocket | undefined

  constructor(numbers: Numbers = NUMBERS) {
    this.#numbers = renumbering(numbers)
  }

  close(): void {
    for (const socket of [this.#changes, this.#dumps, this.#events]) socket?.close()
  }

  // === links and addresses ===

  async links(): Promise<readonly Link[]> {
    return (await this.#dump('list devices', TYPE.GETLINK, [Buffer.alloc(16)])).map(linkOf)
  }

  /** @throws NetlinkError EEXIST where the name is taken, ENOTSUP where the kernel has no such kind. */
  addLink(name: string, kind: string): Promise<void> {
    return this.#change(`add ${kind} device ${name}`, TYPE.NEWLINK, linkBody({ name, kind }), CREATE)
  }

  setLink({ name, index }: Link, to: { up?: true; mtu?: number }): Promise<void> {
    return this.#change(`set device ${name} ${JSON.stringify(to)}`, TYPE.NEWLINK, linkBody({ index, ...to }))
  }

  /** One that is gone already is no error. */
  removeLink({ name, index }: Link): Promise<void> {
    return this.#remove(`remove device ${name}`, TYPE.DELLINK, linkBody({ index }))
  }

  async addresses(): Promise<readonly LinkAddress[]> {
    return (await this.#dump('list addresses', TYPE.GETADDR, [Buffer.alloc(8)])).flatMap(
      (bytes) => addressOf(bytes) ?? [],
    )
  }

  /** Without duplicate address detection, so that the address works at once. */
  addAddress(address: LinkAddress): Promise<void> {
    return this.#change(`add address ${text(address)}`, TYPE.NEWADDR, addressBody(address), REPLACE)
  }

  removeAddress(address: LinkAddress): Promise<void> {
    return this.#remove(`remove address ${text(address)}`, TYPE.DELADDR, addressBody(address))
  }

  // === routes, nexthops, rules ===

  /** Routes of both families with one of these protocols. */
  async routes(protocols: readonly number[]): Promise<readonly Route[]> {
    const messages = await this.#dumpFamilies('list routes', TYPE.GETROUTE, 12)
    return messages
      .flatMap((bytes) => (protocols.includes(bytes[ROUTE_PROTOCOL_OFFSET]!) && routeOf(bytes)) || [])
      .map(this.#numbers.fromKernel.table)
  }

  /** Default routes of the main table, whoever made them. */
  async defaultRoutes(): Promise<readonly Route[]> {
    const messages = await this.#dumpFamilies('list routes', TYPE.GETROUTE, 12)
    return messages.flatMap((bytes) => (isMainDefault(bytes) && routeOf(bytes)) || [])
  }

  /** Unicast routes of the main table that others made, but for its default routes. */
  async foreignRoutes(own: readonly number[]): Promise<readonly Route[]> {
    const messages = await this.#dumpFamilies('list routes', TYPE.GETROUTE, 12)
    return messages.flatMap(
      (bytes) => (isMainSpecific(bytes) && !own.includes(bytes[ROUTE_PROTOCOL_OFFSET]!) && routeOf(bytes)) || [],
    )
  }

  /** @returns undefined where packets to this address end here, are refused, or lead nowhere. */
  async hopTo(family: Family, address: string, mark: number): Promise<Hop | undefined> {
    try {
      const operation = `look up the route to ${address}`
      const [answer] = await request(
        this.#changes,
        operation,
        TYPE.GETROUTE,
        hopBody(family, address, this.#numbers.mark(mark)),
        0,
      )
      const hop = answer && hopOf(answer.data)
      return hop && this.#numbers.fromKernel.table(hop)
    } catch (error) {
      ignoring(NOWHERE)(error)
      return undefined
    }
  }

  replaceRoute(route: Route): Promise<void> {
    return this.#change(
      `set ${route.kind} route to ${route.destination}`,
      TYPE.NEWROUTE,
      routeBody(this.#numbers.toKernel.table(route), 'add'),
      REPLACE,
    )
  }

  /** One that is gone already is no error. */
  removeRoute(route: Route): Promise<void> {
    return this.#remove(
      `remove ${route.kind} route to ${route.destination}`,
      TYPE.DELROUTE,
      routeBody(this.#numbers.toKernel.table(route), 'remove'),
    )
  }

  async nexthops(): Promise<readonly Nexthop[]> {
    return (await this.#dump('list nexthops', TYPE.GETNEXTHOP, [Buffer.alloc(8)])).flatMap(
      (bytes) => nexthopOf(bytes) ?? [],
    )
  }

  /** Also moves all routes over this object at once. */
  replaceNexthop(nexthop: Nexthop): Promise<void> {
    return this.#change(
      `set nexthop ${nexthop.id} to device #${nexthop.device}`,
      TYPE.NEWNEXTHOP,
      nexthopBody(nexthop),
      REPLACE,
    )
  }

  /** The routes over it go with it. One that is gone already is no error. */
  removeNexthop(nexthop: Nexthop): Promise<void> {
    return this.#remove(`remove nexthop ${nexthop.id}`, TYPE.DELNEXTHOP, nexthopIdBody(nexthop))
  }

  async rules(): Promise<readonly Rule[]> {
    const messages = await this.#dumpFamilies('list rules', TYPE.GETRULE, 12)
    return messages.flatMap((bytes) => ruleOf(bytes) ?? []).map(this.#numbers.fromKernel.rule)
  }

  /** One that is there already is no error. */
  addRule(rule: Rule): Promise<void> {
    const here = this.#numbers.toKernel.rule(rule)
    const operation = `add IPv${here.family} rule ${here.priority} for table ${here.table}`
    return this.#change(operation, TYPE.NEWRULE, ruleBody(here), CREATE).catch(ignoring(['EEXIST']))
  }

  /** One that is gone already is no error. */
  removeRule(rule: Rule): Promise<void> {
    const here = this.#numbers.toKernel.rule(rule)
    const operation = `remove IPv${here.family} rule ${here.priority} for table ${here.table}`
    return this.#remove(operation, TYPE.DELRULE, ruleBody(here))
  }

  // === other parts of rtnetlink ===

  /** One message that changes something, with the flags that say whether it may, or must, be there already. */
  change(operation: string, type: number, body: readonly StreamData[], flags: 'replace' | 'create'): Promise<void> {
    return this.#change(operation, type, body, flags === 'replace' ? REPLACE : CREATE)
  }

  /** One that is gone already is no error. */
  remove(operation: string, type: number, body: readonly StreamData[]): Promise<void> {
    return this.#remove(operation, type, body)
  }

  /** @param header of the request, which says what is listed. */
  list(operation: string, type: number, header: Buffer): Promise<readonly Buffer[]> {
    return this.#dump(operation, type, [header])
  }

  // === notices ===

  /**
   * Calls back for each change of links, addresses, routes, nexthops and rules until closed; once per instance. What this
   * instance did to routes, nexthops and rules is left out. The kernel tells nothing of IPv4 routes and nexthops that go
   * with their device: watch the link.
   */
  watch(listener: (event: NetlinkEvent) => void): void {
    const events = open(true)
    this.#events = events
    const own = this.#changes.address().port
    events.on('message', (messages) => {
      for (const { type, port, data } of messages) {
        const event = this.#renumbered(eventOf(type, data))
        if (event !== undefined && (port !== own || event.kind === 'link' || event.kind === 'address')) listener(event)
      }
    })
    events.on('error', () => listener({ kind: 'lost' }))
    const { LINK, IPV4_IFADDR, IPV6_IFADDR, IPV4_ROUTE, IPV6_ROUTE, IPV4_RULE, IPV6_RULE, NEXTHOP } = rt.MulticastGroups
    for (const group of [LINK, IPV4_IFADDR, IPV6_IFADDR, IPV4_ROUTE, IPV6_ROUTE, IPV4_RULE, IPV6_RULE, NEXTHOP])
      events.addMembership(group)
  }

  #renumbered(event: NetlinkEvent | undefined): NetlinkEvent | undefined {
    return event?.kind === 'route' || event?.kind === 'rule' ? this.#numbers.fromKernel.table(event) : event
  }

  // === requests ===

  async #change(operation: string, type: number, body: readonly StreamData[], flags = 0): Promise<void> {
    await request(this.#changes, operation, type, body, flags)
  }

  #remove(operation: string, type: number, body: readonly StreamData[]): Promise<void> {
    return this.#change(operation, type, body).catch(ignoring(GONE))
  }

  async #dumpFamilies(operation: string, type: number, headerLength: number): Promise<readonly Buffer[]> {
    const header = (family: number) => Buffer.alloc(headerLength).fill(family, 0, 1)
    return [
      ...(await this.#dump(operation, type, [header(AF[4])])),
      ...(await this.#dump(operation, type, [header(AF[6])])),
    ]
  }

  /** One dump at a time: the kernel refuses a second on the same socket. */
  #dump(operation: string, type: number, body: readonly StreamData[]): Promise<readonly Buffer[]> {
    const dump = this.#lastDump.then(async () => {
      for (let tries = 1; ; tries++) {
        const messages = await request(this.#dumps, operation, type, body, FlagsGet.DUMP)
        if (tries < DUMP_TRIES_MAX && messages.some(({ flags }) => flags & Flags.DUMP_INTR)) continue
        return messages.map(({ data }) => data)
      }
    })
    this.#lastDump = dump.catch(() => undefined)
    return dump
  }
}

/** @param ref whether the socket alone keeps the process alive. */
function open(ref: boolean): NetlinkSocket {
  const socket = createNetlink(Protocol.ROUTE, { ref } as Parameters<typeof createNetlink>[1])
  // An answer that was lost shows as the time-out of its request.
  if (!ref) socket.on('error', () => undefined)
  return socket
}

async function request(
  socket: NetlinkSocket,
  operation: string,
  type: number,
  body: readonly StreamData[],
  flags: number,
): Promise<readonly NetlinkMessage[]> {
  let messages: NetlinkMessage[]
  const { promise: late, reject } = Promise.withResolvers<never>()
  const giveUp = afterRunning(PATIENCE_MS, () => reject(new NetlinkError(operation, 'ETIMEDOUT')))
  try {
    const answer = socket.request(type, encode(body), { flags, checkError: false, timeout: FORGET_MS })
    ;[messages] = await Promise.race([answer, late])
  } catch (error) {
    if (error instanceof NetlinkError) throw error
    throw new NetlinkError(operation, (error as { code?: string }).code ?? 'ETIMEDOUT', error)
  } finally {
    giveUp()
  }
  const first = messages[0]
  if (first?.type !== MESSAGE_ERROR) return messages
  const { errno } = parseError(first.data, first.flags)
  if (errno !== 0) throw new NetlinkError(operation, getSystemErrorName(errno))
  return []
}

const NOWHERE = ['ENETUNREACH', 'EHOSTUNREACH', 'EACCES', 'EINVAL', 'ESRCH']
const GONE = ['ESRCH', 'ENOENT', 'ENODEV', 'EADDRNOTAVAIL']

function ignoring(errnos: readonly string[]) {
  return (error: unknown): void => {
    if (!(error instanceof NetlinkError && errnos.includes(error.errno))) throw error
  }
}

const text = ({ address, length, device }: LinkAddress) => `${address}/${length} of device #${device}`
