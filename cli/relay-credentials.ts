// How a command of a person reaches the relay: by a kubeconfig for its API (`fulmar kubeconfig`), or by an address, the CA
// and a token of --proxy-users.

import { readFileSync } from 'node:fs'
import { homedir } from 'node:os'
import { dirname, join, resolve } from 'node:path'
import { optional, optionalText, url, type Options, type Values } from '../lib/config.ts'
import { UsageError } from '../lib/net/lifetime.ts'
import { tlsTargetOf } from '../lib/net/relay-tls.ts'

export type RelayCredentials = {
  readonly host: string
  readonly port: number
  readonly caPem: string | undefined
  readonly certificatePem?: string | undefined
  readonly keyPem?: string | undefined
  readonly token?: string | undefined
}

export const CREDENTIAL_OPTIONS = {
  kubeconfig: {
    name: 'kubeconfig',
    value: 'FILE',
    doc: 'as fulmar kubeconfig prints it, instead of $KUBECONFIG and ~/.kube/config',
    fallback: '',
    parse: optionalText,
  },
  relay: {
    name: 'relay',
    value: 'URL',
    doc: 'the relay, https://HOST:PORT, instead of the server in the kubeconfig',
    fallback: '',
    parse: optional(url('https')),
  },
  ca: {
    name: 'ca',
    value: 'FILE',
    doc: 'ca.crt of the relay; with --relay',
    fallback: '',
    parse: optionalText,
  },
  tokenFile: {
    name: 'token-file',
    value: 'FILE',
    doc: 'a token of the --proxy-users of the relay, instead of the certificate in the kubeconfig',
    fallback: '',
    parse: optionalText,
  },
} satisfies Options

/** @throws UsageError naming the file and what is wrong with it. */
export async function credentialsOf(
  { kubeconfig, relay, ca, tokenFile }: Values<typeof CREDENTIAL_OPTIONS>,
  env: NodeJS.ProcessEnv,
): Promise<RelayCredentials> {
  const token = tokenFile === undefined ? undefined : read('--token-file', tokenFile).trim()
  const caPem = ca === undefined ? undefined : read('--ca', ca)
  // Whoever has a token needs nothing of a kubeconfig.
  if (relay !== undefined && token !== undefined) return { ...placeOf(relay), caPem, token }
  const file = kubeconfig ?? env['KUBECONFIG']?.split(':').find(Boolean) ?? join(homedir(), '.kube/config')
  const known = await readKubeconfig(file)
  return {
    ...known,
    ...(relay && placeOf(relay)),
    ...(caPem !== undefined && { caPem }),
    ...(token !== undefined && { token, certificatePem: undefined, keyPem: undefined }),
  }
}

type Entry = Readonly<Record<string, unknown>>

async function readKubeconfig(file: string): Promise<RelayCredentials> {
  const text = read('--kubeconfig', file)
  const wrong = (what: string): UsageError => new UsageError(`--kubeconfig ${file}: ${what}`)
  const { parse } = await import('yaml')
  let config: Entry
  try {
    config = (parse(text) ?? {}) as Entry
  } catch (cause) {
    throw wrong(`is no YAML: ${(cause as Error).message.split('\n', 1)[0]}`)
  }
  const named = (list: string, name: unknown, key: string): Entry => {
    const entries = Array.isArray(config[list]) ? (config[list] as readonly Entry[]) : []
    const found = entries.find((entry) => entry?.['name'] === name)?.[key]
    if (typeof found !== 'object' || found === null) throw wrong(`has no ${key} ${String(name)}`)
    return found as Entry
  }
  const context = named('contexts', config['current-context'], 'context')
  const cluster = named('clusters', context['cluster'], 'cluster')
  const user = named('users', context['user'], 'user')
  /** Inline in base64, or in a file beside. */
  const pem = (entry: Entry, key: string): string | undefined => {
    const data = entry[`${key}-data`]
    const path = entry[key]
    if (typeof data === 'string') return Buffer.from(data, 'base64').toString()
    return typeof path === 'string' ? read('--kubeconfig', resolve(dirname(file), path)) : undefined
  }
  const server = URL.parse(String(cluster['server']))
  if (server?.protocol !== 'https:') throw wrong(`${String(cluster['server'])} is no https://HOST:PORT`)
  const token = user['token']
  return {
    ...placeOf(server),
    caPem: pem(cluster, 'certificate-authority'),
    certificatePem: pem(user, 'client-certificate'),
    keyPem: pem(user, 'client-key'),
    token: typeof token === 'string' ? token : undefined,
  }
}

function placeOf(url: URL): Pick<RelayCredentials, 'host' | 'port'> {
  const { host, port } = tlsTargetOf(url)
  return { host, port }
}

function read(flag: string, file: string): string {
  try {
    return readFileSync(file, 'utf8')
  } catch (cause) {
    throw new UsageError(`${flag} ${file}: cannot be read: ${(cause as Error).message}`, { cause })
  }
}
