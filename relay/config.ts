// The relay's flags.

import { isIP } from 'node:net'
import { parseSocketAddress, type SocketAddress } from '../lib/address.ts'
import { integer, list, logLevel, optionalText, text, type Option } from '../lib/config.ts'
import { RUN_DIR, STATE_DIR } from '../lib/owned.ts'

const socketAddressOf = (value: string): SocketAddress => {
  const address = parseSocketAddress(value)
  if (address === undefined) throw new Error(`is not ADDRESS:PORT or [ADDRESS]:PORT`)
  return address
}
const ipAddress = (value: string): string => {
  if (isIP(value) === 0) throw new Error(`${value} is not an IP address`)
  return value
}
const hostName = (value: string): string => {
  if (isIP(value) === 0 && !/^[a-z0-9]([-.a-z0-9]*[a-z0-9])?$/i.test(value))
    throw new Error(`${value} is neither an IP address nor a name`)
  return value
}
const atLeastOne =
  <T>(parse: (value: string) => readonly T[]) =>
  (value: string): readonly T[] => {
    const items = parse(value)
    if (items.length === 0) throw new Error('is empty')
    return items
  }
const portPair = (value: string): readonly [number, number] => {
  const [first, second, ...rest] = list(integer(1, 65535))(value)
  if (first === undefined || second === undefined || rest.length > 0 || first === second)
    throw new Error('is not two different ports')
  return [first, second]
}

const option = <T>(
  name: string,
  value: string,
  doc: string,
  parse: (text: string) => T,
  fallback?: string,
): Option<T> => ({
  name,
  value,
  doc,
  parse,
  ...(fallback !== undefined && { fallback }),
})

export const OPTIONS = {
  listen: option(
    'listen',
    'ADDRESS:PORT,…',
    'where nodes and users dial in by TLS',
    atLeastOne(list(socketAddressOf)),
    '0.0.0.0:443,[::]:443',
  ),
  public: option(
    'public',
    'HOST,…',
    'addresses and names by which the edge reaches this relay',
    atLeastOne(list(hostName)),
  ),
  stun: option(
    'stun',
    'ADDRESS,…',
    'one or two addresses of this machine for STUN; none switches it off',
    list(ipAddress),
    '',
  ),
  stunPorts: option('stun-ports', 'PORT,PORT', 'the two UDP ports for STUN', portPair, '3478,3479'),
  manifests: option(
    'manifests',
    'DIR',
    'a folder of Kubernetes objects, served as an API; without it there is none',
    optionalText,
    '',
  ),
  stateDir: option('state-dir', 'DIR', 'certificates and tokens', text, STATE_DIR),
  runDir: option('run-dir', 'DIR', 'the socket for fulmar status', text, RUN_DIR),
  metrics: option(
    'metrics',
    'ADDRESS:PORT',
    'where /metrics and /healthz are served',
    socketAddressOf,
    '127.0.0.1:9472',
  ),
  logLevel,
}

export type RelayConfig = { readonly [K in keyof typeof OPTIONS]: ReturnType<(typeof OPTIONS)[K]['parse']> }
