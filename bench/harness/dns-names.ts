// The names that DNS servers are compared by: the services of a cluster, as each server wants to be told of them, and the
// questions of pods for them.

import type { Service } from '../../lib/k8s/objects.ts'
import { random } from '../../test/lib/random.ts'

const SERVICES = 1_000
const NAMESPACES = 20
const QUESTIONS = 5_000
export const DOMAIN = 'cluster.local'
/** Seconds. */
const TTL = 5

type Name = {
  readonly namespace: string
  readonly service: string
  readonly v4: string
  readonly v6: string | undefined
}
/** Every second one has both families. */
const names: readonly Name[] = Array.from({ length: SERVICES }, (_, i) => ({
  namespace: `ns${i % NAMESPACES}`,
  service: `svc${i}`,
  v4: `10.96.${i >> 8}.${i & 255}`,
  v6: i % 2 === 0 ? `fd00:96::${(i + 1).toString(16)}` : undefined,
}))
const hostOf = ({ namespace, service }: Name): string => `${service}.${namespace}.svc.${DOMAIN}`

export const services: readonly Service[] = names.map(({ namespace, service, v4, v6 }) => ({
  metadata: { namespace, name: service },
  spec: {
    clusterIP: v4,
    clusterIPs: v6 === undefined ? [v4] : [v4, v6],
    ports: [{ name: 'http', protocol: 'TCP', port: 80 }],
  },
}))

/** RFC 1035 §5. */
export const zoneFile = (): string =>
  [
    `$ORIGIN ${DOMAIN}.\n$TTL ${TTL}\n@ SOA ns.dns hostmaster 1 7200 1800 86400 ${TTL}\n@ NS ns.dns\nns.dns A 127.0.0.1\n`,
    ...names.flatMap((name) => [
      `${hostOf(name)}. A ${name.v4}\n`,
      ...(name.v6 === undefined ? [] : [`${hostOf(name)}. AAAA ${name.v6}\n`]),
    ]),
  ].join('')

/** As /etc/hosts. */
export const hostsFile = (): string =>
  names
    .flatMap((name) =>
      [name.v4, ...(name.v6 === undefined ? [] : [name.v6])].map((address) => `${address} ${hostOf(name)}\n`),
    )
    .join('')

/** unbound's own data, for the clause `server:`. */
export const localData = (): string =>
  [
    `  local-zone: "${DOMAIN}." static\n`,
    `  local-data: "${DOMAIN}. ${TTL} SOA ns.dns.${DOMAIN}. hostmaster.${DOMAIN}. 1 7200 1800 86400 ${TTL}"\n`,
    ...names.flatMap((name) => [
      `  local-data: "${hostOf(name)}. ${TTL} A ${name.v4}"\n`,
      ...(name.v6 === undefined ? [] : [`  local-data: "${hostOf(name)}. ${TTL} AAAA ${name.v6}"\n`]),
    ]),
  ].join('')

export type Asked = { readonly name: string; readonly type: 'A' | 'AAAA' }

/** What pods ask: both families of a service, and outside names with the search list's ends, which are not there. */
export function questions(): readonly Asked[] {
  const next = random(1)
  const some = <T>(list: readonly T[]): T => list[Math.floor(next() * list.length)]!
  return Array.from({ length: QUESTIONS }, (): Asked => {
    const name = some(names)
    const type = next() < 0.5 ? 'A' : 'AAAA'
    if (next() < 0.8) return { name: hostOf(name), type }
    return { name: `www${Math.floor(next() * 100)}.example.com.${name.namespace}.svc.${DOMAIN}`, type }
  })
}
