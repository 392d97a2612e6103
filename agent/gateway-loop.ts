// Which gateway of the pool is active, as its gateways say on the LAN: the agent sends there what goes to other pools,
// cloud or no cloud. Until one is heard, the order of the objects counts.

import { X509Certificate } from 'node:crypto'
import type { Pool } from '../lib/k8s/pools.ts'
import { Follower, LanPeers } from '../lib/lan.ts'
import type { Log } from '../lib/log.ts'
import { openLanSocket } from '../lib/net/lan-socket.ts'

export type ActiveGateway = {
  /** undefined while none of the pool's gateways was heard that may be it. */
  readonly heard: () => string | undefined
  /** False for a moment after the start, in which a gateway that is there will be heard: routes stay as they are. */
  readonly settled: () => boolean
  readonly problems: () => readonly string[]
}

/** Four heartbeats, one of which carries the certificate. */
const SETTLE_MS = 1_500

export function followGateway(
  options: {
    readonly caPem: string
    /** Of gateways; ours is the next. */
    readonly lanPort: number
    readonly pool: () => Pool | undefined
    readonly onChange: () => void
    readonly log: Log
  },
  signal: AbortSignal,
): ActiveGateway {
  const { pool, onChange, log } = options
  const peers = openPeers(options.caPem, log)
  const follower = new Follower()
  let waiting = true
  const settle = (): void => {
    if (signal.aborted) return
    waiting = false
    onChange()
  }
  const timer = setTimeout(settle, SETTLE_MS)
  signal.addEventListener('abort', () => clearTimeout(timer), { once: true })

  const socket = openLanSocket(
    {
      port: options.lanPort + 1,
      log,
      onMessage: (datagram) => {
        const own = pool()
        const said = peers?.receive(datagram, (name) => own?.gateways.includes(name) === true, performance.now())
        if (said === undefined || said.pool !== own?.name || !follower.heard(said, performance.now())) return
        log.info({ pool: said.pool, gateway: said.node, term: said.term }, 'active gateway')
        clearTimeout(timer)
        settle()
      },
    },
    signal,
  )
  return {
    heard: () => follower.active(pool()?.gateways ?? []),
    // Where one node only may be the gateway there is nothing to hear.
    settled: () => !waiting || (pool()?.gateways.length ?? 0) < 2,
    problems: () => [socket.problem() ?? [], peers === undefined ? NO_CA : []].flat(),
  }
}

const NO_CA =
  'the CA certificate in the state folder cannot be read, so no gateway is believed; run fulmar join --force'

/** Without a CA nobody is believed, and the agent does all that it can without the LAN. */
function openPeers(caPem: string, log: Log): LanPeers | undefined {
  try {
    return new LanPeers(new X509Certificate(caPem))
  } catch (err) {
    log.error({ err }, 'the CA certificate cannot be read; gateways on the LAN are not believed')
    return undefined
  }
}
