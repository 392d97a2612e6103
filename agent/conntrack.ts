// Which UDP flows still lead where no endpoint is any more. A kernel translates the first packet of a flow only, so a
// client that keeps its socket would send to a dead pod for as long as it sends.

import type { Frontend, ServiceFrontends } from './balance.ts'
import type { Takeover } from './takeover.ts'

/** `address port` that is called → the `address port` that may answer. */
export type UdpTargets = ReadonlyMap<string, ReadonlySet<string>>
/** Flows to one address and port that are answered by one address: deleted together. */
export type StaleFlows = {
  readonly called: string
  readonly port: number
  readonly answeredBy: string
  readonly answeringPort: number
}

/** @param nodeAddresses those that have NodePorts. */
export function udpTargets(
  services: readonly ServiceFrontends[],
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

/** @param line of `conntrack -L`: the tuple of the request, then that of the answer. */
export function staleFlow(line: string, targets: UdpTargets): StaleFlows | undefined {
  const [request, answer] = [...line.matchAll(TUPLE)]
  if (request === undefined || answer === undefined) return undefined
  const [, , called, , port] = request
  const [, answeredBy, , answeringPort] = answer
  const allowed = targets.get(`${called} ${port}`)
  if (allowed === undefined || allowed.has(`${answeredBy} ${answeringPort}`)) return undefined
  return { called: called!, port: Number(port), answeredBy: answeredBy!, answeringPort: Number(answeringPort) }
}
const TUPLE = /src=(\S+) dst=(\S+) sport=(\d+) dport=(\d+)/g

/** Arguments of `conntrack`. */
export const deleteFlows = ({ called, port, answeredBy, answeringPort }: StaleFlows): readonly string[] => [
  ...['-D', '-f', called.includes(':') ? 'ipv6' : 'ipv4', '-p', 'udp'],
  ...['--orig-dst', called, '--orig-port-dst', `${port}`],
  ...['--reply-src', answeredBy, '--reply-port-src', `${answeringPort}`],
]
