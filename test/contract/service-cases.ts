// What callers of a service see, whatever carries their connections: a case per rule, in the order of the checklist for
// service proxies. All services are there at once; each case is called from several places over both families.

import type { Service } from '../../lib/k8s/objects.ts'
import { SECOND_PORT, type Place } from './service-world.ts'

export type Expected =
  /** These answer and nobody else; each sees the caller's own address, or one of the node's. */
  | { readonly by: readonly string[]; readonly sees?: 'caller' | 'node' }
  /** At once. */
  | 'refused'
  | 'dropped'
  /** Not by the service, however the packet ends. */
  | 'unanswered'

export type CaseCall = {
  readonly from: Place
  /** Which of the service's addresses; `gateway` and `loopback` are other addresses of the node. */
  readonly to: 'cluster' | 'external' | 'ingress' | 'node' | 'gateway' | 'loopback'
  /** The Service's port, or its NodePort; 80 and the case's own NodePort where nothing is said. */
  readonly port?: number
  readonly protocol?: 'tcp' | 'udp'
  readonly expect: Expected
  /** Of TCP, where calls are redirected at connect() and not packets, if that differs. */
  readonly atConnect?: Expected
}
export type State = 'ready' | 'draining' | 'starting'
export type Case = {
  readonly name: string
  readonly spec?: Partial<NonNullable<Service['spec']>>
  readonly labels?: Readonly<Record<string, string>>
  readonly ipMode?: string
  /** Addresses of the load balancer and of `externalIPs` are there where asked for. */
  readonly external?: boolean
  readonly ports?: NonNullable<NonNullable<Service['spec']>['ports']>
  readonly endpoints: readonly (readonly [place: Place, state?: State, port?: number])[]
  readonly calls: readonly CaseCall[]
  /** Where the kernel's own path is asked for, a path inside the caller's sockets is not. */
  readonly packets?: true
}

const a = [['a']] as const
const spread = [['a'], ['far']] as const
const only = (...by: readonly string[]): Expected => ({ by })
const kept = (...by: readonly string[]): Expected => ({ by, sees: 'caller' })
const masqueraded = (...by: readonly string[]): Expected => ({ by, sees: 'node' })
const everybody = (to: CaseCall['to'], expect: Expected): readonly CaseCall[] =>
  (['c', 'node', 'outside'] as const).map((from) => ({ from, to, expect }))
const local = { externalTrafficPolicy: 'Local' } as const
const loadBalancer = { type: 'LoadBalancer' } as const

export const CASES: readonly Case[] = [
  // 1: which services
  {
    name: 'another proxy was asked for',
    labels: { 'service.kubernetes.io/service-proxy-name': 'other' },
    endpoints: a,
    calls: [{ from: 'c', to: 'cluster', expect: 'unanswered' }],
  },
  {
    name: 'our proxy was asked for',
    labels: { 'service.kubernetes.io/service-proxy-name': 'fulmar' },
    endpoints: a,
    calls: [{ from: 'c', to: 'cluster', expect: only('a') }],
  },
  // 2, 17: ports
  {
    name: 'several ports',
    ports: [
      { name: 'tcp', protocol: 'TCP', port: 80 },
      { name: 'second', protocol: 'TCP', port: 81 },
      // Nobody calls it: not every kernel has SCTP sockets, but each must take the rules.
      { name: 'third', protocol: 'SCTP', port: 82 },
    ],
    endpoints: a,
    calls: [
      { from: 'c', to: 'cluster', protocol: 'tcp', expect: only('a') },
      { from: 'c', to: 'cluster', protocol: 'tcp', port: 81, expect: only('a2') },
    ],
  },
  {
    name: 'one name, another number in each pod',
    endpoints: [['a', 'ready', SECOND_PORT], ['b']],
    calls: [{ from: 'c', to: 'cluster', expect: only('a2', 'b') }],
  },
  // 3, 4: conditions
  {
    name: 'what is not ready is left out',
    endpoints: [['a', 'starting'], ['b', 'draining'], ['c']],
    calls: [{ from: 'b', to: 'cluster', expect: only('c') }],
  },
  {
    name: 'what drains serves where nothing is ready',
    endpoints: [
      ['a', 'starting'],
      ['b', 'draining'],
    ],
    calls: [{ from: 'c', to: 'cluster', expect: only('b') }],
  },
  // 5, 14: nobody answers
  {
    name: 'no endpoints',
    spec: loadBalancer,
    external: true,
    endpoints: [],
    calls: [
      ...everybody('cluster', 'refused'),
      ...everybody('node', 'refused'),
      ...everybody('external', 'refused'),
      ...everybody('ingress', 'refused'),
    ],
  },
  {
    name: 'a port that no service has',
    endpoints: a,
    calls: [
      { from: 'c', to: 'cluster', port: 99, expect: 'refused' },
      { from: 'node', to: 'cluster', port: 99, expect: 'refused' },
    ],
  },
  // 6: internalTrafficPolicy
  {
    name: 'iTP Local',
    spec: { internalTrafficPolicy: 'Local' },
    endpoints: spread,
    calls: [
      { from: 'c', to: 'cluster', expect: kept('a') },
      { from: 'node', to: 'cluster', expect: only('a') },
    ],
  },
  {
    name: 'iTP Local, none here',
    spec: { ...loadBalancer, internalTrafficPolicy: 'Local' },
    external: true,
    endpoints: [['far']],
    calls: [
      { from: 'c', to: 'cluster', expect: 'dropped' },
      { from: 'c', to: 'ingress', expect: only('far') },
    ],
  },
  // 7: externalTrafficPolicy Local
  {
    name: 'eTP Local',
    spec: { ...loadBalancer, ...local },
    external: true,
    endpoints: spread,
    calls: (['node', 'external', 'ingress'] as const).flatMap((to) => [
      { from: 'outside', to, expect: kept('a') },
      { from: 'c', to, expect: kept('a', 'far') },
      { from: 'node', to, expect: only('a', 'far') },
    ]),
  },
  {
    name: 'eTP Local, none here',
    spec: { ...loadBalancer, ...local },
    external: true,
    endpoints: [['far']],
    calls: (['node', 'ingress'] as const).flatMap((to) => [
      { from: 'outside', to, expect: 'dropped' },
      { from: 'c', to, expect: only('far') },
      { from: 'node', to, expect: only('far') },
    ]),
  },
  {
    name: 'eTP Local, what drains here',
    spec: { ...loadBalancer, ...local },
    external: true,
    endpoints: [['a', 'draining'], ['far']],
    calls: [
      { from: 'outside', to: 'ingress', expect: kept('a') },
      { from: 'c', to: 'ingress', expect: kept('far') },
      { from: 'c', to: 'cluster', expect: kept('far') },
    ],
  },
  // 8: source addresses
  {
    name: 'who sees what address',
    spec: { type: 'NodePort' },
    external: true,
    endpoints: spread,
    calls: [
      { from: 'c', to: 'cluster', expect: kept('a', 'far') },
      { from: 'outside', to: 'cluster', expect: masqueraded('a', 'far') },
      { from: 'node', to: 'cluster', expect: masqueraded('a', 'far') },
      { from: 'outside', to: 'node', expect: masqueraded('a', 'far') },
      { from: 'outside', to: 'external', expect: masqueraded('a', 'far') },
      { from: 'far', to: 'node', expect: masqueraded('a', 'far') },
      { from: 'c', to: 'node', expect: only('a', 'far') },
      { from: 'node', to: 'node', expect: masqueraded('a', 'far') },
    ],
  },
  // 9: hairpin
  {
    name: 'a pod calls itself',
    spec: loadBalancer,
    external: true,
    endpoints: a,
    calls: (['cluster', 'node', 'external', 'ingress'] as const).map((to) => ({ from: 'a', to, expect: only('a') })),
  },
  {
    name: 'a pod calls itself, eTP Local',
    spec: { ...loadBalancer, ...local },
    external: true,
    endpoints: a,
    calls: (['node', 'ingress'] as const).map((to) => ({ from: 'a', to, expect: only('a') })),
  },
  // 10: NodePorts
  {
    name: 'NodePorts are on the primary addresses of the node only',
    spec: { type: 'NodePort' },
    endpoints: a,
    calls: [
      ...everybody('node', only('a')),
      { from: 'c', to: 'gateway', expect: 'refused' },
      { from: 'node', to: 'loopback', expect: 'refused', atConnect: only('a') },
    ],
    packets: true,
  },
  {
    name: 'one NodePort, a service for each protocol: TCP',
    spec: { type: 'NodePort' },
    ports: [{ name: 'tcp', protocol: 'TCP', port: 80, nodePort: 32000 }],
    endpoints: a,
    calls: [{ from: 'outside', to: 'node', port: 32000, protocol: 'tcp', expect: only('a') }],
  },
  {
    name: 'one NodePort, a service for each protocol: UDP',
    spec: { type: 'NodePort' },
    ports: [{ name: 'udp', protocol: 'UDP', port: 80, nodePort: 32000 }],
    endpoints: [['b']],
    calls: [{ from: 'outside', to: 'node', port: 32000, protocol: 'udp', expect: only('b') }],
  },
  // 11: external addresses
  {
    name: 'ipMode Proxy is the balancer’s own affair',
    spec: loadBalancer,
    external: true,
    ipMode: 'Proxy',
    endpoints: a,
    calls: [
      { from: 'c', to: 'ingress', expect: 'unanswered' },
      { from: 'c', to: 'external', expect: only('a') },
    ],
  },
  {
    name: 'source ranges that callers are in',
    spec: { ...loadBalancer, loadBalancerSourceRanges: ['192.168.9.0/24', 'fd00:9::/64'] },
    external: true,
    endpoints: a,
    calls: [
      { from: 'outside', to: 'ingress', expect: masqueraded('a') },
      { from: 'c', to: 'ingress', expect: 'dropped' },
      { from: 'c', to: 'external', expect: only('a') },
      { from: 'c', to: 'node', expect: only('a') },
      { from: 'c', to: 'cluster', expect: only('a') },
    ],
  },
  {
    name: 'source ranges and eTP Local',
    spec: { ...loadBalancer, ...local, loadBalancerSourceRanges: ['10.244.1.4/32', 'fd00:244:1::4/128'] },
    external: true,
    endpoints: spread,
    calls: [
      { from: 'outside', to: 'ingress', expect: 'dropped' },
      { from: 'outside', to: 'node', expect: kept('a') },
      { from: 'c', to: 'ingress', expect: kept('a', 'far') },
    ],
  },
  {
    name: 'no NodePort asked for',
    spec: { ...loadBalancer, allocateLoadBalancerNodePorts: false },
    external: true,
    ports: [{ name: 'tcp', protocol: 'TCP', port: 80 }],
    endpoints: a,
    calls: [{ from: 'outside', to: 'ingress', protocol: 'tcp', expect: masqueraded('a') }],
  },
  // 18: the host's network
  {
    name: 'an endpoint in the network of the node',
    spec: { type: 'NodePort' },
    endpoints: [['node']],
    calls: [
      { from: 'c', to: 'cluster', expect: kept('node') },
      { from: 'node', to: 'cluster', expect: only('node') },
      { from: 'outside', to: 'node', expect: only('node') },
    ],
  },
]
