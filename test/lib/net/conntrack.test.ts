import { execFileSync } from 'node:child_process'
import t from 'tap'
import { deleteUdpFlows, encodeFlow, type UdpFlow } from '../../../lib/net/conntrack.ts'
import { enterNamespace } from '../../agent/namespace.ts'

const test = enterNamespace('fmct-', import.meta.url)
if (test !== undefined) {
  const conntrack = (...args: string[]) => execFileSync('conntrack', args, { encoding: 'utf8', stdio: 'pipe' })
  const flow = (family: 4 | 6, sourcePort: number): UdpFlow => ({
    family,
    source: family === 4 ? '10.0.0.1' : 'fd00::1',
    sourcePort,
    destination: family === 4 ? '10.96.0.1' : 'fd00:96::1',
    destinationPort: 53,
  })
  const insert = ({ source, sourcePort, destination, destinationPort }: UdpFlow) =>
    conntrack(
      ...['-I', '-p', 'udp', '-s', source, '-d', destination, '-t', '100'],
      ...['--sport', `${sourcePort}`, '--dport', `${destinationPort}`],
    )
  const tracked = (family: 4 | 6) =>
    [...conntrack('-L', '-f', `ipv${family}`, '-p', 'udp').matchAll(/ sport=(\d+) dport=53 /g)].map(([, port]) =>
      Number(port),
    )

  t.test('the body of a request', async (t) => {
    t.equal(
      encodeFlow(flow(4, 0x1234)).toString('hex'),
      [
        '02000000',
        '3400' + '0180',
        '1400' + '0180' + '0800' + '0100' + '0a000001' + '0800' + '0200' + '0a600001',
        '1c00' + '0280' + '0500' + '0100' + '11000000' + '0600' + '0200' + '12340000' + '0600' + '0300' + '00350000',
      ].join(''),
    )
  })

  t.test('flows are deleted by their tuples, and no others', async (t) => {
    for (const family of [4, 6] as const) {
      for (const port of [1000, 1001, 1002]) insert(flow(family, port))
      await deleteUdpFlows([flow(family, 1000), flow(family, 999), flow(family, 1002)])
      t.strictSame(tracked(family), [1001], `IPv${family}`)
    }
  })
}
