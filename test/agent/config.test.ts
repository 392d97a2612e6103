import t from 'tap'
import { agentOptions } from '../../agent/config.ts'
import { parseOptions } from '../../lib/config.ts'

const parse = (...argv: readonly string[]) => parseOptions(agentOptions, argv, {})

t.test('the DNS by flags', async (t) => {
  t.match(parse(), {
    kind: 'ok',
    values: { clusterDomains: ['cluster.local'], dnsPods: 'insecure', dnsStaleSeconds: 3600, dnsStubs: [] },
  })
  t.match(
    parse(
      '--cluster-domain',
      'Edge.Example.,cluster.local',
      '--dns-stub',
      'corp.example=10.0.0.53',
      '--dns-pods',
      'disabled',
      '--dns-stale',
      '0',
    ),
    {
      values: {
        clusterDomains: ['edge.example', 'cluster.local'],
        dnsStubs: [{ domain: 'corp.example', servers: [{ address: '10.0.0.53', port: 53 }] }],
        dnsPods: 'disabled',
        dnsStaleSeconds: 0,
      },
    },
  )
  const rows: readonly (readonly [flag: string, value: string, error: RegExp])[] = [
    ['--cluster-domain', '', /no domain/],
    ['--cluster-domain', 'a..b', /no domain/],
    ['--dns-stub', 'corp.example', /DOMAIN=ADDRESS/],
    ['--dns-pods', 'verified', /does not follow/],
    ['--dns-pods', 'sometimes', /neither disabled nor insecure/],
    ['--dns-stale', '-1', /whole number/],
  ]
  for (const [flag, value, error] of rows) {
    const parsed = parse(flag, value)
    t.match(parsed.kind === 'invalid' ? parsed.errors.join() : '', error, `${flag} ${value}`)
  }
})

t.test('services by flags', async (t) => {
  t.match(parse(), { values: { servicePath: 'auto', serviceCidrs: [], nodePortAddresses: [] } })
  t.match(parse('--service-path', 'none', '--service-cidrs', '10.96.0.1/12,fd00:96::/108'), {
    values: { servicePath: 'none', serviceCidrs: ['10.96.0.0/12', 'fd00:96::/108'] },
  })
  for (const [flag, value, error] of [
    ['--service-path', 'off', /neither auto, bpf, nft nor none/],
    ['--service-cidrs', '10.96.0.1', /no prefix/],
  ] as const) {
    const parsed = parse(flag, value)
    t.match(parsed.kind === 'invalid' ? parsed.errors.join() : '', error, `${flag} ${value}`)
  }
})
