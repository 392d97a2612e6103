// The chooser for tests: what is chosen, seen from node h1 of pool hangzhou in zone z1 unless told otherwise, and short texts
// of it.

import { balanceOf, type BalanceInput, type Frontend } from '../../agent/balance.ts'
import type { ClusterObjects } from '../../agent/cluster.ts'
import { hereOf } from '../../agent/topology.ts'
import type { Service } from '../../lib/k8s/objects.ts'
import { clusterWith, node } from './shop.ts'

export const nodes = [
  node('h1', 'hangzhou', 'z1', ['192.168.1.1', 'fd00:1::1']),
  node('h2', 'hangzhou', 'z1'),
  node('h3', 'hangzhou', 'z2'),
  node('s1', 'shanghai', 'z3'),
  node('lone', undefined, 'z1'),
]
export type Options = Omit<Partial<BalanceInput>, 'cluster' | 'here'> & { readonly from?: string }
export function balance(objects: Partial<ClusterObjects>, { from = 'h1', ...options }: Options = {}) {
  const cluster = clusterWith({ nodes, ...objects })
  const { services: sorted, ...rest } = balanceOf({ cluster, here: hereOf(cluster, from), ...options })
  const services = [...sorted]
  return {
    frontends: services.flatMap(({ frontends }) => frontends),
    clusterProblems: cluster.problems,
    services,
    ...rest,
  }
}

/** The last numbers of its targets' addresses, or what happens without any; what insiders have after a slash. */
export function brief({ targets, insideTargets, whenEmpty }: Frontend): string {
  const text = (list: typeof targets, empty: string) =>
    list.map(({ address, weight }) => `${address.split(/[.:]/).at(-1)}${weight > 1 ? `*${weight}` : ''}`).join(' ') ||
    empty
  return `${text(targets, whenEmpty)}${insideTargets === undefined ? '' : ` / ${text(insideTargets, 'reject')}`}`
}
export const summary = (frontends: readonly Frontend[]): Record<string, string> =>
  Object.fromEntries(
    frontends.map((frontend) => [
      `${frontend.kind} ${frontend.address ?? '*'} ${frontend.protocol}/${frontend.port}`,
      brief(frontend),
    ]),
  )

export const annotated = (key: string, value: string): Partial<Service> => ({
  metadata: { namespace: 'shop', name: 'web', annotations: { [key]: value } },
})
