import t from 'tap'
import { parseResolvConf, parseServer, parseStubs, stubFor } from '../../agent/resolv-conf.ts'

t.test('resolv.conf', async (t) => {
  const text =
    '# comment\nsearch example.com\nnameserver 192.0.2.53\n nameserver fe80::1%eth0\nnameserver nonsense\nnameserver 2001:db8::53\n'
  t.strictSame(
    parseResolvConf(text).map(({ address, port }) => `${address} ${port}`),
    ['192.0.2.53 53', 'fe80::1%eth0 53', '2001:db8::53 53'],
  )
})

t.test('a resolver by flag', async (t) => {
  const rows: readonly (readonly [text: string, server: string | undefined])[] = [
    ['192.0.2.53', '192.0.2.53 53'],
    ['192.0.2.53:5353', '192.0.2.53 5353'],
    ['2001:db8::53', '2001:db8::53 53'],
    ['[2001:DB8::53]:5353', '2001:db8::53 5353'],
    ['dns.example.com', undefined],
    ['192.0.2.53:0', undefined],
    ['', undefined],
  ]
  for (const [text, server] of rows) {
    const found = parseServer(text)
    t.equal(found && `${found.address} ${found.port}`, server, text)
  }
})

t.test('stub domains', async (t) => {
  const stubs = parseStubs('corp.example=192.0.2.1, Lab.Corp.Example.=[2001:db8::1]:5353,corp.example=192.0.2.2:53,')
  t.strictSame(
    stubs.map(({ domain, servers }) => `${domain} ${servers.map(({ address, port }) => `${address} ${port}`).join()}`),
    ['lab.corp.example 2001:db8::1 5353', 'corp.example 192.0.2.1 53,192.0.2.2 53'],
  )
  const rows: readonly (readonly [name: string, domain: string | undefined])[] = [
    ['corp.example', 'corp.example'],
    ['a.LAB.corp.example', 'lab.corp.example'],
    ['acorp.example', undefined],
    ['example', undefined],
  ]
  for (const [name, domain] of rows) t.equal(stubFor(stubs, name)?.domain, domain, name)
  for (const text of ['corp.example', '=192.0.2.1', 'a b=192.0.2.1', 'corp.example=dns.example', 'a..b=192.0.2.1'])
    t.throws(() => parseStubs(text), /is not DOMAIN=/, text)
  t.strictSame(parseStubs(''), [])
})
