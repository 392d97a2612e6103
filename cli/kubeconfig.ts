// `fulmar kubeconfig`: prints a kubeconfig for the embedded API, with a client certificate of its own. Run on the relay's
// machine; whoever may read the CA's key may become anybody.

import { createClient, validFor } from '../lib/certificates.ts'
import { stateDirOption } from '../lib/common-options.ts'
import { integer, text, url, type Options } from '../lib/config.ts'
import { GROUP_MASTERS } from '../lib/identity.ts'
import { openAuthorityForPeople } from '../lib/net/authority.ts'
import { readOptions } from '../lib/net/options.ts'

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
  },
  server: {
    name: 'server',
    value: 'URL',
    doc: 'the relay as this user dials it, https://HOST:PORT',
    parse: url('https'),
  },
  group: {
    name: 'group',
    value: 'GROUP',
    doc: 'its group',
    fallback: GROUP_MASTERS,
    parse: text,
  },
  days: {
    name: 'days',
    value: 'N',
    doc: 'how long it is valid',
    fallback: '365',
    parse: integer(1, 3650),
  },
  stateDir: stateDirOption('that of the relay'),
} satisfies Options

export async function main(argv: readonly string[], env: NodeJS.ProcessEnv): Promise<number> {
  const values = readOptions('fulmar kubeconfig --server URL', OPTIONS, argv, env)
  if (typeof values === 'number') return values
  const { user, server, group, days, stateDir } = values
  const nowMs = Date.now()
  const authority = await openAuthorityForPeople('fulmar kubeconfig', stateDir, nowMs)
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
