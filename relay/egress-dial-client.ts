// Dials what kube-apiserver asks for (egress-route.ts): nodes over their sessions, everything else straight from this host,
// whose routes may lead into the mesh.

import { lookup } from 'node:dns/promises'
import type { Duplex } from 'node:stream'
import { formatSocketAddress } from '../lib/address.ts'
import { connectFailure, connectTcp } from '../lib/net/tcp-connect.ts'
import type { ConnectDial } from './connect-server.ts'
import { isForbidden, type EgressRoute } from './egress-route.ts'
import { NodeDialError, type DialNode } from './node-dial.ts'

const DIAL_MS = 5_000

export function createEgressDial(options: {
  readonly route: (host: string) => EgressRoute
  readonly dialNode: DialNode
  /** Why a node is not there, for its pods' sake; undefined if it is. */
  readonly absence: (node: string) => string | undefined
}): ConnectDial {
  return async (host, port, signal) => {
    const route = options.route(host)
    switch (route.kind) {
      case 'refused':
        throw new NodeDialError('offline', route.reason)
      case 'node':
        return options.dialNode(route.node, { host: route.node, port }, signal)
      case 'direct':
        try {
          return await dialStraight(route.host, port, signal)
        } catch (error) {
          if (route.podOf === undefined || !(error instanceof NodeDialError)) throw error
          const absent = options.absence(route.podOf)
          const why = absent ?? 'the mesh needs a gateway on the host of this relay'
          throw new NodeDialError(error.failure, `${host} is a pod of ${route.podOf}: ${error.message}; ${why}`, {
            cause: error,
          })
        }
    }
  }
}

/** @throws NodeDialError */
async function dialStraight(host: string, port: number, signal: AbortSignal): Promise<Duplex> {
  const address = await resolved(host)
  const where = formatSocketAddress({ address, port })
  const late = AbortSignal.any([signal, AbortSignal.timeout(DIAL_MS)])
  try {
    return await connectTcp(address, port, late)
  } catch (cause) {
    if (late.aborted) throw new NodeDialError('timeout', `no answer from ${where} within ${DIAL_MS / 1000} s`)
    throw new NodeDialError('failed', connectFailure(cause as NodeJS.ErrnoException, where), { cause })
  }
}

/** The address is judged again here, since a name may lead anywhere. */
async function resolved(host: string): Promise<string> {
  let address: string
  try {
    address = (await lookup(host)).address
  } catch (cause) {
    throw new NodeDialError('failed', `there is no ${host}: ${(cause as NodeJS.ErrnoException).code}`, { cause })
  }
  if (isForbidden(address)) throw new NodeDialError('refused', `${host} leads to ${address}, which is never dialled`)
  return address
}
