import t from 'tap'
import { proxyTargetOf } from '../../relay/proxy-route.ts'

const NODES: Readonly<Record<string, string>> = {
  'edge-7': 'edge-7',
  'edge.example': 'edge.example',
  '7.edge.example': '7.edge.example',
  '192.168.1.7': 'edge-7',
}
const nodeOf = (host: string): string | undefined => NODES[host]

t.test('what a client of the proxy asks for', async (t) => {
  const rows: readonly [asked: string, expected: string | undefined][] = [
    ['edge-7', 'edge-7 edge-7'],
    ['192.168.1.7', 'edge-7 edge-7'],
    ['console.edge-7', 'edge-7 console'],
    ['192.168.1.20.edge-7', 'edge-7 192.168.1.20'],
    ['plc.lan.edge-7', 'edge-7 plc.lan'],
    ['7.edge.example', '7.edge.example 7.edge.example'],
    ['console.7.edge.example', '7.edge.example console'],
    ['8.edge.example', 'edge.example 8'],
    // An address names no node behind a target.
    ['console.192.168.1.7', undefined],
    ['10.192.168.1.7', undefined],
    ['.edge-7', undefined],
    ['edge-8', undefined],
    ['console.edge-8', undefined],
    ['example.com', undefined],
    ['::1', undefined],
  ]
  for (const [asked, expected] of rows) {
    const target = proxyTargetOf(asked, 443, nodeOf)
    t.equal(target && `${target.node} ${target.host}`, expected, asked)
  }
})
