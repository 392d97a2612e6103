// A wireguard-go process through its control socket (https://www.wireguard.com/xplatform/): what `wg` would do, without a
// program run for each change. The kernel's devices have no such socket.

import { createConnection } from 'node:net'
import { ExecError } from './exec.ts'
import type { DeviceDump, DevicePeer, PeerSettings } from './wireguard.ts'

const DIRECTORY = '/var/run/wireguard'
const TIMEOUT_MS = 10_000
/** Thousands of peers with dozens of prefixes. */
const ANSWER_MAX_BYTES = 16 << 20

/** @returns undefined where no wireguard-go serves this device. @throws ExecError if it does not answer. */
export async function getDevice(device: string): Promise<DeviceDump | undefined> {
  const answer = await ask(device, 'get=1\n\n')
  return answer === undefined ? undefined : parseGet(answer)
}

/** @returns false where no wireguard-go serves this device, or refuses: `wg` says why. @throws ExecError if it does not answer. */
export async function setPeers(device: string, changes: readonly PeerSettings[]): Promise<boolean> {
  return (await ask(device, `set=1\n${changes.map(peerLines).join('')}\n`)) !== undefined
}

/**
 * @param settings privateKey in base64. @returns false where no wireguard-go serves this device, or refuses.
 * @throws ExecError if it does not answer.
 */
export async function setDevice(
  device: string,
  settings: {
    readonly privateKey?: string | undefined
    readonly port?: number | undefined
    readonly mark?: number | undefined
  },
): Promise<boolean> {
  return (await ask(device, `set=1\n${deviceLines(settings)}\n`)) !== undefined
}

export function deviceLines({ privateKey, port, mark }: Parameters<typeof setDevice>[1]): string {
  return [
    ...(privateKey === undefined ? [] : [`private_key=${toHex(privateKey)}`]),
    ...(port === undefined ? [] : [`listen_port=${port}`]),
    ...(mark === undefined ? [] : [`fwmark=${mark}`]),
  ]
    .map((line) => `${line}\n`)
    .join('')
}

export function peerLines(change: PeerSettings): string {
  const lines = [`public_key=${toHex(change.publicKey)}`]
  if (change.kind === 'remove') lines.push('remove=true')
  else {
    const { allowedIps, endpoint, keepaliveSeconds } = change
    if (allowedIps !== undefined)
      lines.push('replace_allowed_ips=true', ...allowedIps.map((cidr) => `allowed_ip=${cidr}`))
    if (endpoint !== undefined) lines.push(`endpoint=${endpoint}`)
    if (keepaliveSeconds !== undefined) lines.push(`persistent_keepalive_interval=${keepaliveSeconds}`)
  }
  return lines.map((line) => `${line}\n`).join('')
}

export function parseGet(text: string): DeviceDump {
  const device = { privateKey: undefined as string | undefined, port: 0, mark: 0 }
  const peers: Mutable<DevicePeer>[] = []
  for (const line of text.split('\n')) {
    const equals = line.indexOf('=')
    const [key, value] = [line.slice(0, equals), line.slice(equals + 1)]
    if (key === 'public_key') peers.push(newPeer(value))
    const peer = peers.at(-1)
    switch (key) {
      case 'private_key':
        device.privateKey = /^0*$/.test(value) ? undefined : toBase64(value)
        break
      case 'listen_port':
        device.port = Number(value)
        break
      case 'fwmark':
        device.mark = Number(value)
        break
      case 'endpoint':
        if (peer !== undefined) peer.endpoint = value
        break
      case 'allowed_ip':
        if (peer !== undefined) peer.allowedIps = [...peer.allowedIps, value]
        break
      case 'last_handshake_time_sec':
        if (peer !== undefined && value !== '0') peer.latestHandshake = Number(value) * 1_000
        break
      case 'rx_bytes':
        if (peer !== undefined) peer.rx = Number(value)
        break
      case 'tx_bytes':
        if (peer !== undefined) peer.tx = Number(value)
        break
      case 'persistent_keepalive_interval':
        if (peer !== undefined) peer.keepaliveSeconds = Number(value)
        break
    }
  }
  return { ...device, peers }
}

type Mutable<T> = { -readonly [K in keyof T]: T[K] }
const newPeer = (hex: string): Mutable<DevicePeer> => ({
  publicKey: toBase64(hex),
  endpoint: undefined,
  allowedIps: [],
  latestHandshake: undefined,
  rx: 0,
  tx: 0,
  keepaliveSeconds: 0,
})
const toHex = (base64: string): string => Buffer.from(base64, 'base64').toString('hex')
const toBase64 = (hex: string): string => Buffer.from(hex, 'hex').toString('base64')

/** @returns undefined where nobody listens, or with an errno for answer. @throws ExecError, also after 10 s. */
function ask(device: string, request: string): Promise<string | undefined> {
  const { promise, resolve, reject } = Promise.withResolvers<string | undefined>()
  const fail = (reason: string, cause?: Error): void =>
    reject(new ExecError(`wireguard-go ${device}`, reason, '', cause))
  const socket = createConnection(`${DIRECTORY}/${device}.sock`)
  socket.setEncoding('latin1')
  socket.setTimeout(TIMEOUT_MS, () => socket.destroy(new Error(`no answer within ${TIMEOUT_MS / 1000} s`)))
  let answer = ''
  socket.on('connect', () => socket.write(request))
  socket.on('data', (text: string) => {
    answer += text
    if (answer.length > ANSWER_MAX_BYTES) return void socket.destroy(new Error('the answer is too long'))
    if (!answer.endsWith('\n\n')) return
    socket.end()
    resolve(/^errno=0$/m.test(answer) ? answer : undefined)
  })
  socket.on('close', () => fail('closed its control socket without an answer'))
  socket.on('error', (error: NodeJS.ErrnoException) => {
    const { code = '' } = error
    if (['ENOENT', 'ECONNREFUSED', 'ENOTSOCK'].includes(code)) resolve(undefined)
    else fail(error.message, error)
  })
  return promise
}
