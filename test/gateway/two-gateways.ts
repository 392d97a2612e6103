// Two gateways, a and b, of pools of the same names, on one wire: WireGuard on two rungs, routes to each other over the
// first. Pods are the gateways' own addresses in their podCIDRs.

import { mkdtemp, rm, writeFile } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { linkLocalOf, ulaOf } from '../../gateway/addresses.ts'
import type { WireGuardPeer } from '../../gateway/wireguard.ts'
import type { PoolRoute } from '../../gateway/routes.ts'
import { run } from '../../lib/net/exec.ts'
import { connect, createHost, type Host, type Remote } from '../lib/netns.ts'

export type Gateway = {
  readonly name: string
  readonly host: Host
  readonly daemon: Remote
  readonly publicKey: string
  readonly ipv4: string
  readonly ipv6: string
  readonly options: object
  readonly peer: WireGuardPeer
  readonly route: PoolRoute
}

const PORTS = { direct: 5001, 'relay-udp': 5002 } as const
export const SCRIPT = join(import.meta.dirname, 'kernel-host.ts')

export async function twoGateways(): Promise<{
  a: Gateway
  b: Gateway
  opened: readonly { ms: number; implementation: string }[]
  close: () => Promise<void>
}> {
  const folder = await mkdtemp(join(tmpdir(), 'fmk-'))
  const [hostA, hostB] = await Promise.all([createHost(), createHost()])
  await connect('wan', [hostA, '198.18.0.1/24', '2001:db8::1/64'], [hostB, '198.18.0.2/24', '2001:db8::2/64'])
  const a = await gatewayOf('a', 1, hostA, folder)
  const b = await gatewayOf('b', 2, hostB, folder)
  const opened = [await a.daemon.call('openWireGuard', a.options), await b.daemon.call('openWireGuard', b.options)]
  for (const [own, other, address] of [
    [a, b, '198.18.0.2'],
    [b, a, '198.18.0.1'],
  ] as const)
    await meet(own, other, address)
  const close = async (): Promise<void> => {
    await Promise.all([hostA.close(), hostB.close()])
    await rm(folder, { recursive: true })
  }
  return { a, b, opened, close }
}

/** Gives `own` the other as peer on both rungs, and routes to it over the first. */
async function meet(own: Gateway, other: Gateway, address: string): Promise<void> {
  for (const [rung, port] of Object.entries(PORTS))
    await own.daemon.call('setPeers', rung, [{ ...other.peer, endpoint: `${address}:${port}` }])
  await own.daemon.call('openRoutes', { source4: own.ipv4, source6: own.ipv6 })
  await own.daemon.call('apply', [other.route])
}

async function gatewayOf(name: string, site: number, host: Host, folder: string): Promise<Gateway> {
  const privateKeyFile = join(folder, name)
  const key = await run('wg', ['genkey'])
  await writeFile(privateKeyFile, `${key}\n`, { mode: 0o600 })
  const publicKey = await run('wg', ['pubkey'], { input: key })
  const [ipv4, ipv6] = [`10.244.${site}.1`, `fd00:244:${site}::1`]
  const [linkLocal, ula] = [linkLocalOf(name), ulaOf(name)]
  const cidrs = [`10.244.${site}.0/24`, `fd00:244:${site}::/64`]
  const devices = Object.entries(PORTS).map(([rung, port]) => ({ rung, port }))
  return {
    name,
    host,
    daemon: await host.start(SCRIPT),
    publicKey,
    ipv4,
    ipv6,
    options: { privateKeyFile, devices, addresses: { linkLocal, ula, ipv4, ipv6 } },
    peer: { publicKey, allowedIps: [...cidrs, linkLocal, ula], keepaliveSeconds: 25 },
    route: { pool: name, cidrs, rung: 'direct' },
  }
}
