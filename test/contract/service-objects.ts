// The Service and the EndpointSlices of a case, and where its calls go: each case has a number, and addresses and a NodePort
// that end in it.

import type { Family } from '../../lib/cidr.ts'
import type { EndpointSlice, Service } from '../../lib/k8s/objects.ts'
import type { Case, CaseCall } from './service-cases.ts'
import { ADDRESSES, NODE_OF, POD_GATEWAY, PORT, SECOND_PORT } from './service-world.ts'

const both = (
  index: number,
): Readonly<Record<'cluster' | 'external' | 'ingress', Readonly<Record<Family, string>>>> => ({
  cluster: { 4: `10.96.0.${index}`, 6: `fd00:96::${index}` },
  external: { 4: `198.51.100.${index}`, 6: `fd00:51::${index}` },
  ingress: { 4: `203.0.113.${index}`, 6: `fd00:113::${index}` },
})

/** Where a call of a case goes. */
export function destination(index: number, { to, port }: CaseCall, family: Family): { address: string; port: number } {
  switch (to) {
    case 'cluster':
    case 'external':
    case 'ingress':
      return { address: both(index)[to][family], port: port ?? 80 }
    case 'node':
      return { address: ADDRESSES.node[family], port: port ?? 30_000 + index }
    case 'gateway':
      return { address: POD_GATEWAY[family], port: port ?? 30_000 + index }
    case 'loopback':
      return { address: family === 4 ? '127.0.0.1' : '::1', port: port ?? 30_000 + index }
  }
}

/** @param index from 1; the last number of its addresses. */
export function objectsOf(
  each: Case,
  index: number,
): { readonly service: Service; readonly slices: readonly EndpointSlice[] } {
  const { spec = {}, labels = {}, ipMode, external = false, endpoints } = each
  const name = `case-${index}`
  const addresses = both(index)
  const hasNodePort = spec.type !== undefined
  const ports = each.ports ?? [
    { name: 'tcp', protocol: 'TCP', port: 80, ...(hasNodePort && { nodePort: 30_000 + index }) },
    { name: 'udp', protocol: 'UDP', port: 80, ...(hasNodePort && { nodePort: 30_000 + index }) },
  ]
  const ingress = (address: string) => ({ ip: address, ...(ipMode !== undefined && { ipMode }) })
  return {
    service: {
      metadata: { namespace: 'shop', name, labels: { ...labels } },
      spec: {
        clusterIP: addresses.cluster[4],
        clusterIPs: [addresses.cluster[4], addresses.cluster[6]],
        ...(external && { externalIPs: [addresses.external[4], addresses.external[6]] }),
        ports,
        ...spec,
      },
      ...(external && {
        status: { loadBalancer: { ingress: [ingress(addresses.ingress[4]), ingress(addresses.ingress[6])] } },
      }),
    },
    slices: endpoints.flatMap(([place, state = 'ready', port = PORT], i) =>
      ([4, 6] as const).map((family): EndpointSlice => ({
        metadata: {
          namespace: 'shop',
          name: `${name}-${i}-${family}`,
          labels: { 'kubernetes.io/service-name': name },
        },
        addressType: `IPv${family}`,
        endpoints: [
          {
            addresses: [ADDRESSES[place][family]],
            nodeName: NODE_OF[place],
            conditions: {
              ready: state === 'ready',
              serving: state !== 'starting',
              terminating: state === 'draining',
            },
          },
        ],
        ports: ports.map(({ name, protocol }) => ({
          name: name!,
          protocol: protocol!,
          port: name === 'second' ? SECOND_PORT : port,
        })),
      })),
    ),
  }
}
