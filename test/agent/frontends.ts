// Services as the chooser gives them, for the tests of the socket load balancer.

import type { Frontend, ServiceFrontends, Target } from '../../agent/balance.ts'
import type { EntriesOptions } from '../../agent/socket-lb.ts'

export const target = (last: number, weight = 1): Target => ({
  address: `10.244.0.${last}`,
  port: 8080,
  node: 'h1',
  weight,
})
export const base: Frontend = {
  service: 'shop/web',
  portName: 'http',
  family: 4,
  protocol: 'TCP',
  kind: 'cluster-ip',
  address: '10.96.0.1',
  port: 80,
  targets: [target(1), target(2)],
  whenEmpty: 'reject',
  keepsSource: false,
}
export const options: EntriesOptions = { nodeAddresses: ['192.0.2.1', '2001:db8::1'], refuse: true, except: new Set() }
export const serviceOf = (...frontends: readonly Partial<Frontend>[]): ServiceFrontends => {
  const all = frontends.map((frontend) => ({ ...base, ...frontend }))
  return { service: all[0]!.service, frontends: all }
}
