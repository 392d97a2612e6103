import t from 'tap'
import { destinationOf, parseTarget, parseTargets, reasonAgainst, type OpsPolicy } from '../../agent/ops-targets.ts'

t.test('what an operator may declare', async (t) => {
  const rows: readonly [text: string, expected: object | RegExp][] = [
    ['192.168.1.20:80', { host: '192.168.1.20', port: 80 }],
    [' [2001:DB8::1]:443 ', { host: '2001:db8::1', port: 443 }],
    ['localhost:3000', { host: 'localhost', port: 3000 }],
    ['127.0.0.1:3000', { host: '127.0.0.1', port: 3000 }],
    ['PLC.example:502', { host: 'plc.example', port: 502 }],
    ['plc.lan:502@192.168.1.7/24', { host: 'plc.lan', port: 502, within: { text: '192.168.1.0/24' } }],
    ['console=192.168.1.20:8443', { name: 'console', host: '192.168.1.20', port: 8443 }],
    ['plc-2=plc.lan:502@192.168.1.0/24', { name: 'plc-2', host: 'plc.lan', within: { text: '192.168.1.0/24' } }],
    ['=192.168.1.20:80', /is no name such as console/],
    ['Console=192.168.1.20:80', /Console is no name such as console/],
    ['a.b=192.168.1.20:80', /is no name/],
    ['80=192.168.1.20:80', /is no name/],
    ['console=', /not HOST:PORT/],
    ['console=169.254.169.254:80', /metadata/],
    ['plc.lan', /not HOST:PORT/],
    ['plc.lan:0', /not HOST:PORT/],
    ['plc.lan:65536', /not HOST:PORT/],
    ['a/b:80', /not HOST:PORT/],
    ['[plc]:80', /not HOST:PORT/],
    ['-x:80', /neither an address nor a name/],
    ['plc.lan:80@192.168.1.0', /no prefix/],
    ['192.168.1.20:80@192.168.1.0/24', /prefix after an address/],
    ['169.254.169.254:80', /the metadata service of a cloud, which is never dialled/],
    ['169.254.1.1:80', /a link-local address/],
    ['[fe80::1]:80', /a link-local address/],
    ['[fd00:ec2::254]:80', /metadata/],
    ['[::ffff:169.254.169.254]:80', /metadata/],
    ['0.0.0.0:80', /no address of a host/],
    ['224.0.0.1:80', /no address of a host/],
    ['[64:ff9b::a00:1]:80', /no address of a host/],
  ]
  for (const [text, expected] of rows)
    if (expected instanceof RegExp) t.throws(() => parseTarget(text), { message: expected }, text)
    else t.match(parseTarget(text), expected, text)
})

t.test('names are of one target each', async (t) => {
  t.equal(parseTargets('a=localhost:1,b=localhost:1, c.lan:2').length, 3)
  t.throws(() => parseTargets('a=localhost:1,b=localhost:2,a=10.0.0.1:3'), { message: 'a is the name of two of them' })
})

const policy: OpsPolicy = {
  node: 'Edge-7',
  kubeletPort: 10250,
  targets: ['localhost:9100', '10.0.0.5:9101', '192.168.1.20:80', 'plc.lan:502@192.168.1.0/24'].map(parseTarget),
}
const own = ['10.0.0.5', '2001:db8::5']

t.test('where a dial leads', async (t) => {
  const rows: readonly [host: string, port: number, kind: string][] = [
    ['edge-7', 10250, 'node'],
    ['localhost', 10250, 'node'],
    ['127.0.0.1', 10250, 'node'],
    ['127.8.8.8', 10250, 'node'],
    ['::1', 10250, 'node'],
    ['::ffff:127.0.0.1', 10250, 'node'],
    ['10.0.0.5', 10250, 'node'],
    ['2001:DB8:0::5', 10250, 'node'],
    ['edge-7', 9100, 'node'],
    ['10.0.0.5', 9100, 'node'],
    ['edge-7', 9101, 'node'],
    ['192.168.1.20', 80, 'address'],
    ['PLC.lan', 502, 'name'],
    ['edge-7', 22, 'refused'],
    ['127.0.0.1', 6443, 'refused'],
    ['192.168.1.20', 81, 'refused'],
    ['192.168.1.21', 10250, 'refused'],
    ['192.168.1.20', 10250, 'refused'],
    ['edge-8', 10250, 'refused'],
    ['169.254.169.254', 80, 'refused'],
    ['other.lan', 502, 'refused'],
    ['unix:/run/containerd.sock', 10250, 'refused'],
    ['', 10250, 'refused'],
  ]
  for (const [host, port, kind] of rows) t.equal(destinationOf(policy, host, port, own).kind, kind, `${host}:${port}`)
})

t.test('a target by its name leads where it was declared, whatever the port', async (t) => {
  const named: OpsPolicy = {
    ...{ node: 'edge-7', kubeletPort: 10250 },
    targets: parseTargets('console=192.168.1.20:8443,grafana=localhost:3000,plc=plc.lan:502@192.168.1.0/24'),
  }
  const rows: readonly [host: string, port: number, expected: object][] = [
    ['console', 443, { kind: 'address', address: '192.168.1.20', port: 8443 }],
    ['CONSOLE', 1, { kind: 'address', address: '192.168.1.20', port: 8443 }],
    ['192.168.1.20', 8443, { kind: 'address', port: 8443 }],
    ['grafana', 443, { kind: 'node', port: 3000 }],
    ['plc', 443, { kind: 'name', target: { host: 'plc.lan' }, port: 502 }],
    ['192.168.1.20', 443, { kind: 'refused', reason: /declares what is \(console, grafana, plc\)$/ }],
    ['consle', 443, { kind: 'refused', reason: /^consle:443 is not open .+ \(console, grafana, plc\)$/ }],
    ['edge-7', 443, { kind: 'refused' }],
  ]
  for (const [host, port, expected] of rows) t.match(destinationOf(named, host, port, own), expected, host)
  const namesake = { ...named, node: 'console' }
  t.equal(
    destinationOf(namesake, 'console', 22, own).kind,
    'refused',
    'a node of the same name opens none of its ports',
  )
})

t.test('the kubelet by the port that all have, wherever it listens', (t) => {
  const edged: OpsPolicy = { node: 'edge-7', kubeletPort: 10350, targets: parseTargets('localhost:9100') }
  const rows: readonly [host: string, port: number, expected: object][] = [
    ['edge-7', 10350, { kind: 'node', port: 10350 }],
    ['edge-7', 10250, { kind: 'node', port: 10350 }],
    ['127.0.0.1', 10250, { kind: 'node', port: 10350 }],
    ['edge-7', 9100, { kind: 'node', port: 9100 }],
    ['edge-7', 10251, { kind: 'refused' }],
    ['edge-8', 10250, { kind: 'refused' }],
  ]
  for (const [host, port, expected] of rows) t.match(destinationOf(edged, host, port, own), expected, `${host}:${port}`)
  const declared = { ...edged, targets: parseTargets('localhost:10250') }
  t.match(destinationOf(declared, 'edge-7', 10250, own), { kind: 'node', port: 10250 }, 'what is declared is that')
  t.end()
})

t.test('where a declared name may lead', async (t) => {
  const rows: readonly [target: string, address: string, reason: RegExp | undefined][] = [
    ['shop.example:443', '93.184.216.34', undefined],
    ['shop.example:443', '2606:2800:220:1::1', undefined],
    ['shop.example:443', '192.168.1.9', /into the LAN/],
    ['shop.example:443', 'fd12::1', /into the LAN/],
    ['shop.example:443', '100.64.0.1', /into the LAN/],
    ['shop.example:443', '127.0.0.1', /a loopback address/],
    ['shop.example:443', '::ffff:127.0.0.1', /a loopback address/],
    ['shop.example:443', '169.254.169.254', /metadata/],
    ['shop.example:443', 'fe80::1%eth0', /link-local/],
    ['shop.example:443', '0.0.0.0', /no address of a host/],
    ['shop.example:443', '::ffff:169.254.169.254', /metadata/],
    ['shop.example:443', '64:ff9b::7f00:1', /no address of a host/],
    ['shop.example:443', '64:ff9b:1::c0a8:101', /no address of a host/],
    ['shop.example:443', '2002:7f00:1::', /no address of a host/],
    ['shop.example:443', 'fec0::1', /into the LAN/],
    ['plc.lan:502@192.168.1.0/24', '192.168.1.9', undefined],
    ['plc.lan:502@192.168.1.0/24', '192.168.2.9', /outside of 192.168.1.0\/24/],
    ['plc.lan:502@0.0.0.0/0', '169.254.169.254', /metadata/],
    ['plc.lan:502@0.0.0.0/0', '127.0.0.1', /loopback/],
    ['plc.lan:502', 'nonsense', /no address/],
  ]
  for (const [target, address, reason] of rows) {
    const found = reasonAgainst(parseTarget(target), address)
    if (reason === undefined) t.equal(found, undefined, `${target} ${address}`)
    else t.match(found, reason, `${target} ${address}`)
  }
})
