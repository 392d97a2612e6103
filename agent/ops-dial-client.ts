// Dials what the cloud asks for, if it may (ops-targets.ts).

import { lookup } from 'node:dns/promises'
import type { Socket } from 'node:net'
import { networkInterfaces } from 'node:os'
import { canonicalAddress, formatSocketAddress } from '../lib/address.ts'
import { connectFailure, connectTcpToAny } from '../lib/net/tcp-connect.ts'
import type { ResetReason } from '../lib/wire/mux.ts'
import { destinationOf, reasonAgainst, type Destination, type OpsPolicy, type OpsTarget } from './ops-targets.ts'

/** Why a stream is refused; its message is for whoever asked. */
export class OpsRefusal extends Error {
  readonly code = 'FULMAR_OPS_REFUSED'
  override readonly name = 'OpsRefusal'
  readonly reason: ResetReason
  constructor(reason: ResetReason, message: string, options?: ErrorOptions) {
    super(message, options)
    this.reason = reason
  }
}

/** Less than the relay waits, so that it hears what went wrong. */
const DIAL_MS = 4_000

/** @returns a connected socket. @throws OpsRefusal. */
export async function dialTarget(policy: OpsPolicy, host: string, port: number): Promise<Socket> {
  const late = AbortSignal.timeout(DIAL_MS)
  const own = ownAddresses()
  const destination = destinationOf(policy, host, port, own)
  if (destination.kind === 'refused') throw new OpsRefusal('refused', destination.reason)
  const addresses = await addressesOf(destination, own)
  try {
    return await connectTcpToAny(addresses, destination.port, late)
  } catch (cause) {
    const where = formatSocketAddress({ address: addresses[0]!, port: destination.port })
    if (late.aborted) throw new OpsRefusal('timeout', `no answer from ${where} within ${DIAL_MS / 1000} s`)
    throw new OpsRefusal('failed', connectFailure(cause as NodeJS.ErrnoException, where), { cause })
  }
}

async function addressesOf(
  destination: Exclude<Destination, { readonly kind: 'refused' }>,
  own: readonly string[],
): Promise<readonly string[]> {
  switch (destination.kind) {
    case 'node':
      // Most listen on all addresses; the others on one of the node's.
      return ['127.0.0.1', '::1', ...own]
    case 'address':
      return [destination.address]
    case 'name':
      return resolved(destination.target)
  }
}

async function resolved(target: OpsTarget): Promise<readonly string[]> {
  let found: readonly { readonly address: string }[]
  try {
    found = await lookup(target.host, { all: true })
  } catch (cause) {
    throw new OpsRefusal('failed', `${target.host} cannot be resolved: ${(cause as NodeJS.ErrnoException).code}`, {
      cause,
    })
  }
  const allowed = found.filter(({ address }) => reasonAgainst(target, address) === undefined)
  if (allowed.length === 0) throw new OpsRefusal('refused', reasonAgainst(target, found[0]?.address ?? '') ?? 'nowhere')
  return allowed.map(({ address }) => address)
}

function ownAddresses(): readonly string[] {
  return Object.values(networkInterfaces()).flatMap((infos = []) =>
    infos.filter(({ internal, scopeid }) => !internal && !scopeid).map(({ address }) => canonicalAddress(address)!),
  )
}
