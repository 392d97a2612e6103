// Which UDP flows still lead where no endpoint is any more. A kernel translates the first packet of a flow only, so a
// client that keeps its socket would send to a dead pod for as long as it sends.

import type { Takeover } from './takeover.ts'
import type { Ruleset } from './nft.ts'

/** `ClusterIP port` → the `address port` that may answer. */
export type UdpTargets = ReadonlyMap<string, ReadonlySet<string>>
/** Flows to one ClusterIP and port that are answered by one address: deleted together. */
export type StaleFlows = {
  readonly clusterIp: string
  readonly port: number
  readonly answeredBy: string
  readonly answeringPort: number
}

const UDP = ' . udp . '

export function udpTargets(rulesets: readonly Ruleset[], takeovers: readonly Takeover[]): UdpTargets {
  const targets = new Map<string, Set<string>>()
  for (const { objects } of rulesets) {
    for (const key of objects.get('services')?.keys() ?? []) {
      if (!key.includes(UDP)) continue
      const [clusterIp, , port] = key.split(' . ')
      targets.set(`${clusterIp} ${port}`, new Set())
    }
    for (const [name, elements] of objects) {
      if (!name.startsWith('endpoints-')) continue
      for (const [key, target] of elements) {
        if (!key.includes(UDP)) continue
        const [clusterIp, , port] = key.split(' . ')
        targets.get(`${clusterIp} ${port}`)?.add(target.replace(' . ', ' '))
      }
    }
  }
  for (const { clusterIp, to } of takeovers)
    targets.set(`${clusterIp} 53`, (targets.get(`${clusterIp} 53`) ?? new Set()).add(`${to} 53`))
  return targets
}

/** @param line of `conntrack -L`: the tuple of the request, then that of the answer. */
export function staleFlow(line: string, targets: UdpTargets): StaleFlows | undefined {
  const [request, answer] = [...line.matchAll(TUPLE)]
  if (request === undefined || answer === undefined) return undefined
  const [, , clusterIp, , port] = request
  const [, answeredBy, , answeringPort] = answer
  const allowed = targets.get(`${clusterIp} ${port}`)
  if (allowed === undefined || allowed.has(`${answeredBy} ${answeringPort}`)) return undefined
  return { clusterIp: clusterIp!, port: Number(port), answeredBy: answeredBy!, answeringPort: Number(answeringPort) }
}
const TUPLE = /src=(\S+) dst=(\S+) sport=(\d+) dport=(\d+)/g

/** Arguments of `conntrack`. */
export const deleteFlows = ({ clusterIp, port, answeredBy, answeringPort }: StaleFlows): readonly string[] => [
  ...['-D', '-f', clusterIp.includes(':') ? 'ipv6' : 'ipv4', '-p', 'udp'],
  ...['--orig-dst', clusterIp, '--orig-port-dst', `${port}`],
  ...['--reply-src', answeredBy, '--reply-port-src', `${answeringPort}`],
]
