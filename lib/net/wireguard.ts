// WireGuard devices: show, configure, and start wireguard-go. The kernel's through `wg`; wireguard-go's, where it is a
// matter of many times, through its control socket (wireguard-uapi.ts).

import { readFile } from 'node:fs/promises'
import { groupOutside } from './cgroup.ts'
import { run, ExecError } from './exec.ts'
import { getDevice, setDevice, setPeers } from './wireguard-uapi.ts'

export type DevicePeer = {
  readonly publicKey: string
  readonly endpoint: string | undefined
  readonly allowedIps: readonly string[]
  /** Unix milliseconds with a resolution of one second; undefined before the first handshake. */
  readonly latestHandshake: number | undefined
  readonly rx: number
  readonly tx: number
  readonly keepaliveSeconds: number
}
export type DeviceDump = {
  /** Base64; undefined while none is set. */
  readonly privateKey: string | undefined
  /** 0 while the device is down. */
  readonly port: number
  readonly mark: number
  readonly peers: readonly DevicePeer[]
}
export type DeviceSettings = { readonly privateKeyFile?: string; readonly port?: number; readonly mark?: number }
export type PeerSettings =
  | { readonly kind: 'remove'; readonly publicKey: string }
  | {
      readonly kind: 'set'
      readonly publicKey: string
      readonly allowedIps?: readonly string[]
      readonly endpoint?: string
      readonly keepaliveSeconds?: number
    }

/** @throws ExecError where there is no such device, or its wireguard-go does not answer. */
export async function showDevice(device: string): Promise<DeviceDump> {
  return (await getDevice(device)) ?? parseDump(await run('wg', ['show', device, 'dump']))
}

/** @returns those of the devices that are there, by name, with one program run at the most. */
export async function showDevices(devices: readonly string[]): Promise<ReadonlyMap<string, DeviceDump>> {
  const dumps = await Promise.all(devices.map(async (device) => [device, await getDevice(device)] as const))
  const answered = new Map(dumps.flatMap(([device, dump]) => (dump === undefined ? [] : [[device, dump] as const])))
  return answered.size === devices.length ? answered : parseDumps(await run('wg', ['show', 'all', 'dump']))
}

export async function configureDevice(device: string, settings: DeviceSettings): Promise<void> {
  const { privateKeyFile, port, mark } = settings
  const words = [
    ...(privateKeyFile === undefined ? [] : ['private-key', privateKeyFile]),
    ...(port === undefined ? [] : ['listen-port', String(port)]),
    ...(mark === undefined ? [] : ['fwmark', `0x${mark.toString(16)}`]),
  ]
  if (words.length === 0) return
  const privateKey = privateKeyFile === undefined ? undefined : (await readFile(privateKeyFile, 'utf8')).trim()
  if (!(await setDevice(device, { privateKey, port, mark }))) await run('wg', ['set', device, ...words])
}

/** Peers per call of `wg`, so that its arguments stay far below what the kernel takes (2 MB). */
const PEERS_PER_CALL_MAX = 200

export async function changePeers(device: string, changes: readonly PeerSettings[]): Promise<void> {
  if (changes.length === 0 || (await setPeers(device, changes))) return
  for (let i = 0; i < changes.length; i += PEERS_PER_CALL_MAX)
    await run('wg', ['set', device, ...changes.slice(i, i + PEERS_PER_CALL_MAX).flatMap(peerWords)])
}

export function peerWords(change: PeerSettings): readonly string[] {
  if (change.kind === 'remove') return ['peer', change.publicKey, 'remove']
  const { publicKey, allowedIps, endpoint, keepaliveSeconds } = change
  return [
    'peer',
    publicKey,
    ...(allowedIps === undefined ? [] : ['allowed-ips', allowedIps.join(',')]),
    ...(endpoint === undefined ? [] : ['endpoint', endpoint]),
    ...(keepaliveSeconds === undefined ? [] : ['persistent-keepalive', String(keepaliveSeconds)]),
  ]
}

/**
 * The data path comes before pods, as it does where the kernel has WireGuard. The gateway does not: with it before pods,
 * hand-overs over the relay lost packets on a busy machine (measured).
 */
const NICENESS = -10

/**
 * Leaves the service's group, if there is one; where that is not permitted, a wireguard-go that ends with the service is
 * better than none, and so is one of common priority. The kernel may schedule by sessions instead of processes (autogroup).
 * Its errors come on stdout.
 */
const START = `[ -z "$0" ] || { echo 0 >"$0/cgroup.procs"; } 2>/dev/null
exec setsid sh -c '{ echo ${NICENESS} >/proc/self/autogroup; renice ${NICENESS} $$ >&2; } 2>/dev/null; exec wireguard-go "$0"' "$1" >&2`

/**
 * Starts a wireguard-go process, which makes the TUN device; returns when the device is there (it then puts itself into the
 * background). It must outlive us: a session of its own, no control group of our service, no directory of ours, none of our
 * environment (LOG_LEVEL would tie it to our stdout).
 */
export async function startWireGuardGo(device: string): Promise<void> {
  const path = process.env['PATH'] ?? '/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin'
  const group = await groupOutside()
  try {
    await run('env', ['-i', '-C', '/', `PATH=${path}`, 'sh', '-c', START, group ?? '', device])
  } catch (error) {
    if (!(error instanceof ExecError)) throw error
    const reason = error.stderr.includes('No such file')
      ? 'the kernel has no WireGuard module and wireguard-go is not installed; install the package wireguard-go'
      : (/^ERROR: .*$/m.exec(error.stderr)?.[0] ?? error.message)
    throw new ExecError(`wireguard-go ${device}`, reason, error.stderr, error)
  }
}

/** Parses `wg show DEVICE dump`: a line of the device, then a line per peer, fields between tabs. */
export function parseDump(text: string): DeviceDump {
  const [device = '', ...peers] = text.split('\n').filter((line) => line !== '')
  const [privateKey, , port, mark] = device.split('\t')
  return {
    privateKey: present(privateKey),
    port: Number(port),
    mark: mark === 'off' ? 0 : Number(mark),
    peers: peers.map(parsePeer),
  }
}

/** Parses `wg show all dump`: the same, each line headed by its device. */
export function parseDumps(text: string): ReadonlyMap<string, DeviceDump> {
  const lines = text.split('\n').filter((line) => line !== '')
  const byDevice = Map.groupBy(lines, (line) => line.slice(0, line.indexOf('\t')))
  return new Map(
    [...byDevice].map(([device, own]) => [
      device,
      parseDump(own.map((line) => line.slice(device.length + 1)).join('\n')),
    ]),
  )
}

function parsePeer(line: string): DevicePeer {
  const [publicKey = '', , endpoint, allowedIps, handshake, rx, tx, keepalive] = line.split('\t')
  return {
    publicKey,
    endpoint: present(endpoint),
    allowedIps: present(allowedIps)?.split(',') ?? [],
    latestHandshake: handshake === '0' ? undefined : Number(handshake) * 1_000,
    rx: Number(rx),
    tx: Number(tx),
    keepaliveSeconds: keepalive === 'off' ? 0 : Number(keepalive),
  }
}

const present = (field: string | undefined) => (field === undefined || field === '(none)' ? undefined : field)
