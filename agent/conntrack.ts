// Which UDP flows still lead where no endpoint is any more. A kernel translates the first packet of a flow only, so a
// client that keeps its socket would send to a dead pod for as long as it sends.

import type { Frontend, ServiceFrontends } from './balance.ts'
import type { UdpFlow } from '../lib/net/conntrack.ts'
import type { Takeover } from './takeover.ts'

/** `address port` that is called → the `address port` that may answer. */
export type UdpTargets = ReadonlyMap<string, ReadonlySet<string>>
/** @param nodeAddresses those that have NodePorts. */
export function udpTargets(
  services: Iterable<ServiceFrontends>,
  nodeAddresses: readonly string[],
  takeovers: readonly Takeover[],
): UdpTargets {
  const found = new Map<string, Set<string>>()
  for (const { frontends } of services)
    for (const frontend of frontends) {
      if (frontend.protocol !== 'UDP') continue
      const { targets, insideTargets = [] } = frontend
      const answering = new Set([...targets, ...insideTargets].map(({ address, port }) => `${address} ${port}`))
      for (const key of keysOf(frontend, nodeAddresses)) found.set(key, answering)
    }
  for (const { clusterIp, to } of takeovers)
    found.set(`${clusterIp} 53`, new Set([...(found.get(`${clusterIp} 53`) ?? []), `${to} 53`]))
  return found
}

/** What a service is called by over UDP. */
export const udpKeys = ({ frontends }: ServiceFrontends, nodeAddresses: readonly string[]): readonly string[] =>
  frontends.flatMap((frontend) => (frontend.protocol === 'UDP' ? keysOf(frontend, nodeAddresses) : []))

const keysOf = ({ address, family, port }: Frontend, nodeAddresses: readonly string[]): readonly string[] =>
  (address === undefined ? nodeAddresses.filter((own) => own.includes(':') === (family === 6)) : [address]).map(
    (called) => `${called} ${port}`,
  )

/**
 * @param line of `conntrack -L`: the tuple of the request, then that of the answer.
 * @returns the first of them where what answers may do so no more.
 */
export function staleFlow(line: string, targets: UdpTargets): UdpFlow | undefined {
  const [request, answer] = [...line.matchAll(TUPLE)]
  if (request === undefined || answer === undefined) return undefined
  const [, source, destination, sourcePort, destinationPort] = request
  const [, answeredBy, , answeringPort] = answer
  const allowed = targets.get(`${destination} ${destinationPort}`)
  if (allowed === undefined || allowed.has(`${answeredBy} ${answeringPort}`)) return undefined
  return {
    family: destination!.includes(':') ? 6 : 4,
    source: source!,
    sourcePort: Number(sourcePort),
    destination: destination!,
    destinationPort: Number(destinationPort),
  }
}
const TUPLE = /src=(\S+) dst=(\S+) sport=(\d+) dport=(\d+)/g
