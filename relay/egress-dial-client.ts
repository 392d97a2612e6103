// Dials what kube-apiserver asks for (egress-route.ts): nodes over their sessions, everything else straight from this host,
// whose routes may lead into the mesh.

import { lookup } from 'node:dns/promises'
import type { Duplex } from 'node:stream'
import { formatSocketAddress } from '../lib/address.ts'
import { aborted } from '../lib/net/lifetime.ts'
import { connectFailure, connectTcpToAny } from '../lib/net/tcp-connect.ts'
import type { ConnectDial } from './connect-server.ts'
import { isForbidden, type EgressRoute } from './egress-route.ts'
import { KUBELET_PORT, NodeDialError, type DialNode } from './node-dial.ts'

const DIAL_MS = 5_000
const NO_WAY: readonly string[] = ['EHOSTUNREACH', 'ENETUNREACH']

export type EgressDialOptions = {
  readonly route: (host: string, port: number) => EgressRoute
  readonly dialNode: DialNode
  /** Why a node is not there, for its pods' sake; undefined if it is. */
  readonly absence: (node: string) => string | undefined
}

export function createEgressDial(options: EgressDialOptions): ConnectDial {
  return async (host, port, signal) => {
    const route = options.route(host, port)
    switch (route.kind) {
      case 'refused':
        throw new NodeDialError('offline', route.reason)
      case 'node':
        return options.dialNode(route.node, { host: route.node, port }, signal)
      case 'direct':
        try {
          return await dialStraight(route.host, port, signal)
        } catch (error) {
          if (!(error instanceof NodeDialError)) throw error
          const { podOf, claimedBy } = route
          if (podOf !== undefined) throw await failureOfPod(options, host, podOf, error, signal)
          if (claimedBy === undefined) throw error
          const told = `${error.message}; ports of ${claimedBy} other than its kubelet's are reached by its name`
          throw new NodeDialError(error.failure, told, { cause: error })
        }
    }
  }
}

/** What is silent, the pod, its node or the mesh between. */
async function failureOfPod(
  { absence, dialNode }: EgressDialOptions,
  host: string,
  node: string,
  error: NodeDialError,
  signal: AbortSignal,
): Promise<NodeDialError> {
  const told = `${host} is a pod of ${node}: ${error.message}`
  // It answered, if only with a refusal.
  if (error.failure === 'failed') return new NodeDialError('failed', told, { cause: error })
  let away = absence(node)
  if (away === undefined)
    try {
      ;(await dialNode(node, { host: node, port: KUBELET_PORT }, signal)).destroy()
    } catch (cause) {
      if (cause instanceof NodeDialError && cause.failure === 'offline') away = cause.message
    }
  const why = away ?? 'its node answers; pods of other pools are reached where the pool of this relay has a gateway'
  return new NodeDialError(away === undefined ? error.failure : 'offline', `${told}; ${why}`, { cause: error })
}

/** @throws NodeDialError */
async function dialStraight(host: string, port: number, signal: AbortSignal): Promise<Duplex> {
  const late = AbortSignal.any([signal, AbortSignal.timeout(DIAL_MS)])
  const addresses = await resolved(host, late)
  try {
    return await connectTcpToAny(addresses, port, late)
  } catch (cause) {
    const where = formatSocketAddress({ address: addresses.at(-1)!, port })
    if (late.aborted) throw new NodeDialError('timeout', `no answer from ${where} within ${DIAL_MS / 1000} s`)
    const { code = '' } = cause as NodeJS.ErrnoException
    const failure = NO_WAY.includes(code) ? 'offline' : 'failed'
    throw new NodeDialError(failure, connectFailure(cause as NodeJS.ErrnoException, where), { cause })
  }
}

/** The addresses are judged again here, since a name may lead anywhere. */
async function resolved(host: string, late: AbortSignal): Promise<readonly string[]> {
  let addresses: readonly string[]
  try {
    // A lookup cannot be ended; nobody waits for it any more.
    const found = await Promise.race([lookup(host, { all: true }), aborted(late)])
    if (found === undefined) throw new NodeDialError('timeout', `${host} is not resolved within ${DIAL_MS / 1000} s`)
    addresses = found.map(({ address }) => address)
  } catch (cause) {
    if (cause instanceof NodeDialError) throw cause
    throw new NodeDialError('failed', `there is no ${host}: ${(cause as NodeJS.ErrnoException).code}`, { cause })
  }
  const allowed = addresses.filter((address) => !isForbidden(address))
  if (allowed.length > 0) return allowed
  throw new NodeDialError('refused', `${host} leads to ${addresses.join(', ')}, which is never dialled`)
}
