// The bench's end of a traffic process (traffic.ts).

import { remoteOf, type Host, type Remote } from '../../test/lib/netns.ts'
import type { Lab } from '../../test/lab/lab.ts'

export type Target = { readonly address: string; readonly port: number }
export type Bulk = Target & { readonly ms: number }
export type Ping = Target & { readonly perSecond: number; readonly ms: number; readonly bytes: number }
export type PingReport = { readonly sent: number; readonly rttsMs: readonly number[] }
export type Flood = Target & { readonly from: number; readonly bytes: number; readonly ms: number }
export type Rate = { readonly skipMs: number; readonly ms: number }

export type Traffic = {
  readonly sink: (port: number) => Promise<void>
  readonly bytesPerSecond: (rate: Rate) => Promise<number>
  readonly bulk: (bulk: Bulk) => Promise<void>
  readonly echo: (port: number) => Promise<void>
  readonly ping: (ping: Ping) => Promise<PingReport>
  readonly countDatagrams: (port: number) => Promise<void>
  readonly datagramsPerSecond: (rate: Rate) => Promise<number>
  readonly flood: (flood: Flood) => Promise<void>
  readonly close: () => Promise<void>
}

const TRAFFIC = `${import.meta.dirname}/traffic.ts`

function driveTraffic(remote: Remote): Traffic {
  return {
    sink: (port) => remote.call('sink', port),
    bytesPerSecond: (rate) => remote.call('bytesPerSecond', rate),
    bulk: (bulk) => remote.call('bulk', bulk),
    echo: (port) => remote.call('echo', port),
    ping: (ping) => remote.call('ping', ping),
    countDatagrams: (port) => remote.call('countDatagrams', port),
    datagramsPerSecond: (rate) => remote.call('datagramsPerSecond', rate),
    flood: (flood) => remote.call('flood', flood),
    close: () => remote.kill(),
  }
}

/** On a host of a lab; it ends with the lab. */
export async function trafficOn(lab: Lab, host: string): Promise<Traffic> {
  const child = lab.spawn(host, [process.execPath, TRAFFIC], { stdio: ['ignore', 2, 2, 'ipc'] })
  return driveTraffic(await remoteOf(child))
}

/** On a host of its own; it ends with the host. */
export const trafficIn = async (host: Host): Promise<Traffic> => driveTraffic(await host.start(TRAFFIC))
