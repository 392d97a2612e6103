// The port that WireGuard listens on for the outside: this gateway's own, or the one that its pool's Gateway object names,
// which an operator has opened in a firewall or forwarded. It follows the object while the gateway runs; sessions go on,
// since each side follows the other's packets. A port that somebody else holds is left to them, and named.

import { createSocket } from 'node:dgram'
import type { Family } from '../lib/cidr.ts'
import type { Log } from '../lib/log.ts'
import { createUpkeep } from '../lib/net/upkeep.ts'
import { showDevice } from '../lib/net/wireguard.ts'
import { DEVICES } from '../lib/owned.ts'

export type ListenPort = {
  readonly current: () => number
  /** Why it is not the one that the object names. */
  readonly problems: () => readonly string[]
  /** The objects changed. */
  readonly trigger: () => void
  /** From now on the device is there. @param apply makes WireGuard, and what shares its port, use another. */
  readonly start: (apply: (port: number) => Promise<void>) => void
}

/** What holds a port may end at any time, and is no worse for being asked. */
const RETRY = { baseMs: 1_000, capMs: 60_000 }

/** @param own kept on disk. @param declared what the Gateway object names, undefined for nothing. */
export async function openListenPort(
  options: {
    readonly own: number
    /** Ports that this gateway needs for something else. */
    readonly taken: readonly number[]
    readonly declared: () => number | undefined
    readonly onChange: () => void
    readonly log: Log
  },
  signal: AbortSignal,
): Promise<ListenPort> {
  const { own, taken, declared, log } = options
  // A predecessor's device stays where it is, or the restart would cost each peer a search.
  let current = declared() !== undefined && (await devicePort()) === declared() ? declared()! : own
  let apply: ((port: number) => Promise<void>) | undefined
  let problem = ''
  const upkeep = createUpkeep(
    {
      pass: async () => {
        const wanted = declared() ?? own
        if (wanted === current) problem = ''
        if (wanted === current || apply === undefined) return
        const before = current
        try {
          if (taken.includes(wanted)) throw new Error('this gateway uses it for something else')
          await assertFree(wanted)
          await apply(wanted)
          current = wanted
          problem = ''
          log.info({ port: wanted, before }, 'WireGuard listens on another port')
          options.onChange()
        } catch (err) {
          const why = (err as Error).message
          problem = `WireGuard stays on port ${before}: the Gateway object of this pool names ${wanted}, and ${why}; end what holds that port, or name another`
          throw err
        }
      },
      onError: (err, failures) => {
        if (failures === 1) log.warn({ err, why: problem }, 'WireGuard cannot listen where the Gateway object says')
      },
      backoff: RETRY,
    },
    signal,
  )
  return {
    current: () => current,
    problems: () => (problem === '' ? [] : [problem]),
    trigger: upkeep.trigger,
    start: (how) => {
      apply = how
      upkeep.trigger()
    },
  }
}

async function devicePort(): Promise<number | undefined> {
  try {
    return (await showDevice(DEVICES.direct)).port
  } catch {
    return undefined
  }
}

/** wireguard-go would be left without any port if it failed to get the new one. @throws Error saying that it is in use. */
async function assertFree(port: number): Promise<void> {
  for (const family of [4, 6] as const) await bindOnce(port, family)
}

function bindOnce(port: number, family: Family): Promise<void> {
  const socket = createSocket({ type: `udp${family}`, ipv6Only: family === 6 })
  return new Promise((resolve, reject) => {
    socket.once('error', (error: NodeJS.ErrnoException) => {
      socket.close()
      // A host without IPv6 has nobody who listens there either.
      if (error.code === 'EAFNOSUPPORT') resolve()
      else reject(new Error(error.code === 'EADDRINUSE' ? 'another program listens there' : error.message))
    })
    socket.bind({ port, exclusive: true }, () => socket.close(resolve))
  })
}
