import t from 'tap'
import { staleFlow, udpKeys, udpTargets } from '../../agent/conntrack.ts'
import { takeover } from './rulesets.ts'

t.test('stale UDP flows', async (t) => {
  const frontend = (
    protocol: 'TCP' | 'UDP',
    address: string | undefined,
    port: number,
    targets: readonly string[],
  ) => ({
    service: 'shop/web',
    portName: '',
    family: 4 as const,
    protocol,
    kind: address === undefined ? ('node-port' as const) : ('cluster-ip' as const),
    address,
    port,
    targets: targets.map((address) => ({ address, port: 8081, node: undefined, weight: 1 })),
    whenEmpty: 'reject' as const,
    keepsSource: false,
  })
  const service = {
    service: 'shop/web',
    frontends: [
      frontend('UDP', '10.96.0.1', 81, ['10.244.1.4']),
      frontend('UDP', '10.96.0.2', 7, []),
      frontend('TCP', '10.96.0.3', 80, ['10.244.1.4']),
      {
        ...frontend('UDP', undefined, 30081, ['10.244.1.4']),
        insideTargets: frontend('UDP', '', 0, ['10.244.1.6']).targets,
      },
    ],
  }
  const targets = udpTargets([service], ['192.168.1.1', 'fd00::1'], [takeover])
  t.strictSame(udpKeys(service, ['192.168.1.1', 'fd00::1']), ['10.96.0.1 81', '10.96.0.2 7', '192.168.1.1 30081'])
  const line = (to: string, port: number, from: string, answering: number): string =>
    `udp      17 29 src=10.244.1.9 dst=${to} sport=5000 dport=${port} [UNREPLIED] src=${from} dst=10.244.1.9 sport=${answering} dport=5000 mark=0 use=1`
  const rows: readonly (readonly [name: string, line: string, stale: boolean])[] = [
    ['to an endpoint', line('10.96.0.1', 81, '10.244.1.4', 8081), false],
    ['to one that is gone', line('10.96.0.1', 81, '10.244.1.5', 8081), true],
    ['to a port that it has no more', line('10.96.0.1', 81, '10.244.1.4', 8082), true],
    ['from before the rules: not translated at all', line('10.96.0.1', 81, '10.96.0.1', 81), true],
    ['a NodePort', line('192.168.1.1', 30081, '10.244.1.4', 8081), false],
    ['a NodePort, for insiders', line('192.168.1.1', 30081, '10.244.1.6', 8081), false],
    ['a NodePort whose endpoint is gone', line('192.168.1.1', 30081, '10.244.1.5', 8081), true],
    ['another port of the node', line('192.168.1.1', 53, '192.168.1.1', 53), false],
    ['a service without endpoints', line('10.96.0.2', 7, '10.244.1.4', 7), true],
    ['the takeover', line('10.96.0.10', 53, '169.254.20.53', 53), false],
    ['from before the takeover', line('10.96.0.10', 53, '10.96.0.10', 53), true],
    ['no service of ours', line('192.0.2.1', 53, '192.0.2.1', 53), false],
    ['nonsense', 'conntrack v1.4.7: 3 flow entries have been shown.', false],
  ]
  for (const [name, text, stale] of rows) t.equal(staleFlow(text, targets) !== undefined, stale, name)
  t.strictSame(staleFlow(rows[1]![1], targets), {
    ...{ family: 4, source: '10.244.1.9', sourcePort: 5000 },
    ...{ destination: '10.96.0.1', destinationPort: 81 },
  })
})
