// `fulmar kubeconfig`: prints a kubeconfig for the embedded API, with a client certificate of its own. Run on the relay's
// machine; whoever may read the CA's key may become anybody.

import { createClient, validFor } from '../lib/certificates.ts'
import { describeOptions, integer, parseOptions, text, url, type Option } from '../lib/config.ts'
import { GROUP_MASTERS } from '../lib/identity.ts'
import { openAuthority } from '../lib/net/authority.ts'
import { STATE_DIR } from '../lib/owned.ts'

const userName = (value: string): string => {
  if (!/^[A-Za-z0-9][-A-Za-z0-9_.@]{0,62}$/.test(value))
    throw new Error('is not a user: letters, digits and - _ . @, at most 63')
  return value
}

const OPTIONS = {
  user: {
    name: 'user',
    value: 'NAME',
    doc: 'who the certificate is for',
    fallback: 'admin',
    parse: userName,
  } satisfies Option<string>,
  server: {
    name: 'server',
    value: 'URL',
    doc: 'the relay as this user dials it, https://HOST:PORT',
    parse: url('https'),
  } satisfies Option<URL>,
  group: {
    name: 'group',
    value: 'GROUP',
    doc: 'its group',
    fallback: GROUP_MASTERS,
    parse: text,
  } satisfies Option<string>,
  days: {
    name: 'days',
    value: 'N',
    doc: 'how long it is valid',
    fallback: '365',
    parse: integer(1, 3650),
  } satisfies Option<number>,
  stateDir: {
    name: 'state-dir',
    value: 'DIR',
    doc: 'that of the relay',
    fallback: STATE_DIR,
    parse: text,
  } satisfies Option<string>,
}

const EX_USAGE = 64

export async function main(argv: readonly string[], env: NodeJS.ProcessEnv): Promise<number> {
  const parsed = parseOptions(OPTIONS, argv, env)
  if (parsed.kind === 'help') {
    process.stdout.write(`fulmar kubeconfig --server URL\n\n${describeOptions(OPTIONS)}\n`)
    return 0
  }
  if (parsed.kind === 'invalid') {
    for (const error of parsed.errors) process.stderr.write(`fulmar kubeconfig: ${error}\n`)
    return EX_USAGE
  }
  const { user, server, group, days, stateDir } = parsed.values
  const nowMs = Date.now()
  const authority = await openAuthority(stateDir, nowMs)
  const client = await createClient(authority, { commonName: user, organization: group }, validFor(nowMs, days))
  const { stringify } = await import('yaml')
  const config = {
    apiVersion: 'v1',
    kind: 'Config',
    clusters: [
      {
        name: 'fulmar',
        cluster: { server: server.origin, 'certificate-authority-data': base64(authority.certificatePem) },
      },
    ],
    users: [
      {
        name: user,
        user: { 'client-certificate-data': base64(client.certificatePem), 'client-key-data': base64(client.keyPem) },
      },
    ],
    contexts: [{ name: 'fulmar', context: { cluster: 'fulmar', user } }],
    'current-context': 'fulmar',
  }
  process.stdout.write(stringify(config, { lineWidth: 0 }))
  return 0
}

const base64 = (pem: string): string => Buffer.from(pem).toString('base64')
