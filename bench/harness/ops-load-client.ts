// The bench's end of ops-load.ts.

import type { Host } from '../../test/lib/netns.ts'

/** What a target does with those who dial it: sends for ever, takes all, sends it back, or never reads. */
export type Target = 'pour' | 'sink' | 'echo' | 'deaf'
export type Way = {
  /** Of a Unix socket. */
  readonly path: string
  /** HOST:PORT for an HTTP CONNECT; without it the socket leads there by itself. */
  readonly connect?: string
}
export type Dial = Way & { readonly count: number; readonly use: 'read' | 'write' | 'stall' }
export type Rate = { readonly skipMs: number; readonly ms: number }
export type Trips = Way & { readonly count: number; readonly gapMs: number }
export type Churn = {
  readonly path: string
  /** HOST:PORT, one after the other. */
  readonly paths: readonly string[]
  readonly count: number
  readonly atOnce: number
}

export type OpsLoad = {
  readonly listen: (kind: Target, port: number, address?: string) => Promise<void>
  readonly accepted: () => Promise<number>
  /** Of a target: ends all that it accepted. */
  readonly hangUp: () => Promise<void>
  /** Resolves when all are open and in use. */
  readonly dial: (dial: Dial) => Promise<number>
  readonly close: (group: number) => Promise<void>
  readonly bytesPerSecond: (rate: Rate) => Promise<number>
  readonly trips: (trips: Trips) => Promise<readonly number[]>
  readonly churn: (churn: Churn) => Promise<{ readonly failed: number; readonly why?: string }>
}

/** It ends with the host. */
export async function opsLoadIn(host: Host): Promise<OpsLoad> {
  const remote = await host.start(`${import.meta.dirname}/ops-load.ts`)
  return {
    listen: (kind, port, address = '127.0.0.1') => remote.call('listen', kind, port, address),
    accepted: () => remote.call('accepted'),
    hangUp: () => remote.call('hangUp'),
    dial: (dial) => remote.call('dial', dial),
    close: (group) => remote.call('close', group),
    bytesPerSecond: (rate) => remote.call('bytesPerSecond', rate),
    trips: (trips) => remote.call('trips', trips),
    churn: (churn) => remote.call('churn', churn),
  }
}
