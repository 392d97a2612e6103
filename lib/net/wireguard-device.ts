// One WireGuard device as it is wanted. A device that is there and answers is adopted: only what differs is touched, so
// that its sessions outlive every restart of ours. Else it is made: by the kernel's module, or by a wireguard-go process.

import { watch } from 'node:fs'
import { readFile } from 'node:fs/promises'
import { ExecError } from './exec.ts'
import { pause } from './lifetime.ts'
import { NetlinkError, type Link, type LinkAddress, type Netlink } from './netlink.ts'
import { ensureDeviceSysctls } from './sysctl.ts'
import { configureDevice, showDevice, startWireGuardGo, type DeviceDump } from './wireguard.ts'
import { getDevice } from './wireguard-uapi.ts'

export type DeviceSpec = {
  readonly name: string
  /** A file of mode 0600 with 32 bytes in base64. */
  readonly privateKeyFile: string
  readonly port: number
  readonly mark: number
  readonly mtu: number
  /** Exactly these; others on the device are removed. */
  readonly addresses: readonly Omit<LinkAddress, 'device'>[]
}
export type WireGuardDevice = {
  readonly link: Link
  readonly implementation: 'kernel' | 'wireguard-go'
  /** True if there was no such device before, so it has no peers. */
  readonly made: boolean
  readonly dump: DeviceDump
}

/** A device whose name is ours and that is something else. */
export class DeviceError extends Error {
  readonly code = 'FULMAR_DEVICE'
  override readonly name = 'DeviceError'
}

const KINDS = { wireguard: 'kernel', tun: 'wireguard-go' } as const

/** @throws NetlinkError, ExecError, SysctlError or DeviceError; what was done stays, and the next call goes on from there. */
export async function ensureDevice(netlink: Netlink, spec: DeviceSpec, signal: AbortSignal): Promise<WireGuardDevice> {
  const found = await adopt(netlink, spec.name)
  const { link, dump } = found ?? (await make(netlink, spec.name, signal))
  const implementation = implementationOf(link)

  const privateKey = (await readFile(spec.privateKeyFile, 'utf8')).trim()
  await configureDevice(spec.name, {
    ...(dump.privateKey !== privateKey && { privateKeyFile: spec.privateKeyFile }),
    ...(dump.mark !== spec.mark && { mark: spec.mark }),
  })
  await ensureDeviceSysctls(spec.name)
  if (link.mtu !== spec.mtu) await netlink.setLink(link, { mtu: spec.mtu })
  await ensureAddresses(netlink, link, spec)
  if (!link.up) await netlink.setLink(link, { up: true })
  await ensurePort(spec, dump, signal)
  return { link, implementation, made: found === undefined, dump }
}

type Found = { readonly link: Link; readonly dump: DeviceDump }

/** @returns undefined where there is none, also where one had to be removed because nothing answers for it. */
async function adopt(netlink: Netlink, name: string): Promise<Found | undefined> {
  const link = await findLink(netlink, name)
  if (link === undefined) return undefined
  const implementation = implementationOf(link)
  try {
    return { link, dump: await showDevice(name) }
  } catch (error) {
    if (implementation === 'kernel' || !isUnanswered(error)) throw error
    await netlink.removeLink(link)
    return undefined
  }
}

/** Nothing listens on the device's control socket; a `wg` that is missing or not permitted says nothing of the device. */
const isUnanswered = (error: unknown) =>
  error instanceof ExecError &&
  /^Unable to access interface: (?!Operation not permitted|Permission denied)/.test(error.stderr)

async function make(netlink: Netlink, name: string, signal: AbortSignal): Promise<Found> {
  try {
    await netlink.addLink(name, 'wireguard')
  } catch (error) {
    if (!(error instanceof NetlinkError) || error.errno !== 'ENOTSUP') throw error
    await ending(name, signal)
    await startWireGuardGo(name)
  }
  const link = await findLink(netlink, name)
  if (link === undefined)
    throw new DeviceError(`device ${name} went away while it was made${mayWatchFiles() ? '' : `: ${NO_INOTIFY}`}`)
  return { link, dump: await showDevice(name) }
}

/** wireguard-go watches its control socket by inotify, and ends without a word where root has no instance of it left. */
const NO_INOTIFY =
  'its wireguard-go needs an inotify instance and root has used up all; raise the limit, such as by sysctl -w fs.inotify.max_user_instances=1024'

/** Only a process that watches no file yet can tell. */
function mayWatchFiles(): boolean {
  try {
    watch('/').close()
    return true
  } catch (error) {
    return (error as NodeJS.ErrnoException).code !== 'EMFILE'
  }
}

const ENDING_MAX_MS = 5_000
const ENDING_POLL_MS = 50

/**
 * A wireguard-go whose device was removed ends by itself, in its own time. It removes its control socket as the last thing,
 * by name: it would be the next one's, which then ends too.
 */
async function ending(name: string, signal: AbortSignal): Promise<void> {
  const deadline = performance.now() + ENDING_MAX_MS
  while ((await getDevice(name)) !== undefined && performance.now() < deadline) await pause(ENDING_POLL_MS, signal)
}

const findLink = async (netlink: Netlink, name: string) => (await netlink.links()).find((link) => link.name === name)

function implementationOf({ name, kind }: Link): 'kernel' | 'wireguard-go' {
  if (kind === 'wireguard' || kind === 'tun') return KINDS[kind]
  throw new DeviceError(`device ${name} is no WireGuard device but a ${kind || 'network card'}: remove or rename it`)
}

async function ensureAddresses(netlink: Netlink, link: Link, { addresses }: DeviceSpec): Promise<void> {
  const key = ({ address, length }: { address: string; length: number }) => `${address}/${length}`
  const present = (await netlink.addresses()).filter(({ device }) => device === link.index)
  const wanted = new Set(addresses.map(key))
  const has = new Set(present.map(key))
  for (const address of addresses)
    if (!has.has(key(address))) await netlink.addAddress({ ...address, device: link.index })
  for (const address of present) if (!wanted.has(key(address))) await netlink.removeAddress(address)
}

const PORT_WAIT_MS = 1_000
const PORT_POLL_MS = 2

/**
 * The port is set last, on a device that is up: only then is a port in use an error instead of a device without a socket.
 * wireguard-go notices that its device is up by itself and then opens a socket on some port.
 */
async function ensurePort(spec: DeviceSpec, before: DeviceDump, signal: AbortSignal): Promise<void> {
  if (before.port === spec.port) return
  const deadline = performance.now() + PORT_WAIT_MS
  while ((await showDevice(spec.name)).port === 0 && performance.now() < deadline) await pause(PORT_POLL_MS, signal)
  await configureDevice(spec.name, { port: spec.port })
}
