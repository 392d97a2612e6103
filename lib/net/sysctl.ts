// Kernel settings under /proc/sys, of the network namespace that the process is in.

import { readdir, readFile, writeFile } from 'node:fs/promises'
import type { Log } from '../log.ts'
import type { Netlink } from './netlink.ts'

/** A setting that could not be read or written. */
export class SysctlError extends Error {
  readonly code = 'FULMAR_SYSCTL'
  override readonly name = 'SysctlError'
}

const ROOT = '/proc/sys'

/**
 * Makes a setting what it must be. @param name with slashes, e.g. `net/ipv4/ip_forward`, since device names contain dots.
 * @returns whether it was something else before.
 */
export async function ensureSysctl(name: string, value: string): Promise<boolean> {
  const path = `${ROOT}/${name}`
  try {
    if ((await readFile(path, 'utf8')).trim() === value) return false
    await writeFile(path, value)
    return true
  } catch (error) {
    const remedy = 'run as root with a writable /proc/sys (privileged), or set it on the host'
    throw new SysctlError(`sysctl ${name}=${value}: ${(error as Error).message}; ${remedy}`, { cause: error })
  }
}

/**
 * Lets TCP find out by itself what a path carries (RFC 4821) where ICMP is filtered, instead of hanging: sessions with the
 * relay are what is left on a path that loses large packets. Best effort: a container may not be allowed to.
 */
export async function ensureMtuProbing(log: Log): Promise<void> {
  const name = 'net/ipv4/tcp_mtu_probing'
  try {
    if ((await readFile(`${ROOT}/${name}`, 'utf8')).trim() !== '0') return
    if (await ensureSysctl(name, WHEN_A_BLACK_HOLE_IS_SUSPECTED))
      log.info({ sysctl: 'net.ipv4.tcp_mtu_probing' }, 'TCP finds the MTU of paths that filter ICMP')
  } catch (err) {
    log.warn({ err }, 'a path that loses large packets and says nothing may stall TCP')
  }
}
const WHEN_A_BLACK_HOLE_IS_SUSPECTED = '1'

/**
 * For a device of ours: forwarding, and loose reverse-path filtering (the greater of `all` and this one counts), since the
 * two sides of a path may use different devices for a while. No link-local address of the kernel's own making: it would be
 * chosen as source, and nobody expects it.
 */
export async function ensureDeviceSysctls(device: string): Promise<void> {
  await ensureSysctl(`net/ipv4/conf/${device}/rp_filter`, '2')
  await ensureSysctl(`net/ipv4/conf/${device}/forwarding`, '1')
  await ensureSysctl(`net/ipv6/conf/${device}/disable_ipv6`, '0')
  await ensureSysctl(`net/ipv6/conf/${device}/addr_gen_mode`, '1')
  await ensureSysctl(`net/ipv6/conf/${device}/forwarding`, '1')
}

/** rtnetlink's protocol number of routes learnt from router advertisements. */
const PROTOCOL_RA = 9

/**
 * Lets the node forward packets of both families, as a node with pods must; says in the log what it changed. Forwarding
 * makes Linux ignore router advertisements, so a device that got routes from them goes on accepting them (2).
 */
export async function ensureForwarding(netlink: Netlink, log: Log): Promise<void> {
  if (await ensureSysctl('net/ipv4/ip_forward', '1'))
    log.info({ sysctl: 'net.ipv4.ip_forward' }, 'forwarding switched on')
  if (!(await hasIPv6())) return
  const [routes, links] = await Promise.all([netlink.routes([PROTOCOL_RA]), netlink.links()])
  for (const index of new Set(routes.map(({ device }) => device))) {
    const link = links.find((candidate) => candidate.index === index)
    if (link === undefined) continue
    const sysctl = `net/ipv6/conf/${link.name}/accept_ra`
    if (await ensureSysctl(sysctl, '2')) log.info({ sysctl }, 'router advertisements accepted beside forwarding')
  }
  const sysctl = 'net/ipv6/conf/all/forwarding'
  if (await ensureSysctl(sysctl, '1')) log.info({ sysctl }, 'forwarding switched on')
}

/** False on a kernel started with ipv6.disable=1. */
async function hasIPv6(): Promise<boolean> {
  return readdir(`${ROOT}/net/ipv6`).then(
    () => true,
    () => false,
  )
}
