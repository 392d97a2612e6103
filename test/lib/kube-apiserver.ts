// A kube-apiserver with its etcd on loopback, from the binaries in the folder that KUBEBUILDER_ASSETS names, as envtest
// does it: RBAC, ServiceAccount tokens and admission as in a cluster, and neither controllers nor kubelets.

import { spawn, type ChildProcess } from 'node:child_process'
import { generateKeyPairSync } from 'node:crypto'
import { existsSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { createAuthority, createClient, issueServer, validFor } from '../../lib/certificates.ts'
import { createApiClient } from '../../lib/k8s/api-client.ts'
import { NODES } from '../../lib/k8s/objects.ts'
import { run } from '../../lib/net/exec.ts'
import { freeTcpPorts } from './free-ports.ts'

export type KubeApiserver = {
  readonly url: string
  readonly caPem: string
  /** A file, of the cluster's administrator. */
  readonly kubeconfig: string
  /** As the administrator. @throws Error with what it says. */
  readonly kubectl: (args: readonly string[], input?: string) => Promise<string>
}

const READY_MS = 90_000
const POLL_MS = 200
const PROGRAMS = ['etcd', 'kube-apiserver'] as const

/** Why there is none here; false where there is one. */
export function lacksKubeApiserver(): string | false {
  const folder = process.env['KUBEBUILDER_ASSETS']
  if (folder === undefined) return 'needs KUBEBUILDER_ASSETS, a folder with etcd and kube-apiserver'
  const missing = PROGRAMS.filter((name) => !existsSync(join(folder, name)))
  return missing.length > 0 && `KUBEBUILDER_ASSETS=${folder} has no ${missing.join(' and no ')}`
}

/**
 * Resolves when it is ready; it ends with the test.
 * @param more flags of kube-apiserver, without their dashes.
 * @param hosts lines of an /etc/hosts of its own, for which root is needed.
 */
export async function startKubeApiserver(
  t: { teardown(fn: () => unknown): unknown },
  more: Readonly<Record<string, string>> = {},
  hosts?: string,
): Promise<KubeApiserver> {
  const assets = process.env['KUBEBUILDER_ASSETS']!
  const folder = mkdtempSync(join(tmpdir(), 'fulmar-apiserver-'))
  const file = (name: string, content: string): string => {
    writeFileSync(join(folder, name), content, { mode: 0o600 })
    return join(folder, name)
  }
  const children: ChildProcess[] = []
  t.teardown(async () => {
    for (const child of children.toReversed()) await ended(child)
    rmSync(folder, { recursive: true, force: true })
  })
  const logOf = (program: string): string => join(folder, `${program}.log`)
  const start = (
    program: (typeof PROGRAMS)[number],
    flags: Readonly<Record<string, string | number>>,
  ): ChildProcess => {
    const words = Object.entries(flags).map(([name, value]) => `--${name}=${value}`)
    const command = [
      'sh',
      '-c',
      'log=$1; shift; [ -z "$hosts" ] || mount --bind "$hosts" /etc/hosts; exec "$@" >"$log" 2>&1',
      'sh',
      logOf(program),
      join(assets, program),
      ...words,
    ]
    const ownHosts = hosts === undefined ? undefined : file('hosts', hosts)
    const [first = '', ...rest] = ownHosts === undefined ? command : ['unshare', '--mount', ...command]
    const child = spawn(first, rest, { stdio: 'ignore', env: { ...process.env, hosts: ownHosts } })
    children.push(child)
    return child
  }

  const [client, peer, secure] = (await freeTcpPorts(3)) as [number, number, number]
  const [etcd, url] = [`http://127.0.0.1:${client}`, `https://127.0.0.1:${secure}`]
  const validity = validFor(Date.now(), 1)
  const authority = await createAuthority('kubernetes', validity)
  const ca = file('ca.crt', authority.certificatePem)
  const server = await issueServer(authority, ['127.0.0.1', 'kubernetes.default.svc'], validity)
  const admin = await createClient(authority, { commonName: 'admin', organization: 'system:masters' }, validity)
  const { publicKey, privateKey } = generateKeyPairSync('rsa', { modulusLength: 2048 })

  start('etcd', {
    'data-dir': join(folder, 'etcd'),
    'listen-client-urls': etcd,
    'advertise-client-urls': etcd,
    'listen-peer-urls': `http://127.0.0.1:${peer}`,
    'unsafe-no-fsync': 'true',
  })
  const apiserver = start('kube-apiserver', {
    'etcd-servers': etcd,
    'bind-address': '127.0.0.1',
    'advertise-address': '127.0.0.1',
    'secure-port': secure,
    'cert-dir': folder,
    'tls-cert-file': file('server.crt', server.certificatePem),
    'tls-private-key-file': file('server.key', server.keyPem),
    'client-ca-file': ca,
    'service-cluster-ip-range': '10.96.0.0/16',
    'service-account-issuer': url,
    'service-account-key-file': file('sa.pub', publicKey.export({ type: 'spki', format: 'pem' }).toString()),
    'service-account-signing-key-file': file('sa.key', privateKey.export({ type: 'pkcs8', format: 'pem' }).toString()),
    'authorization-mode': 'RBAC',
    // There is no controller that would make the default accounts of namespaces.
    'disable-admission-plugins': 'ServiceAccount',
    'allow-privileged': 'true',
    ...more,
  })
  const asAdmin = createApiClient({
    server: url,
    ca: authority.certificatePem,
    cert: admin.certificatePem,
    key: admin.keyPem,
  })
  for (const endMs = Date.now() + READY_MS; ;) {
    try {
      await asAdmin.list(NODES, AbortSignal.timeout(5_000))
      break
    } catch (cause) {
      if (Date.now() > endMs || apiserver.exitCode !== null)
        throw new Error(
          `kube-apiserver is not ready:\n${readFileSync(logOf('kube-apiserver'), 'utf8').slice(-2_000)}`,
          {
            cause,
          },
        )
      await new Promise((resolve) => setTimeout(resolve, POLL_MS))
    }
  }
  const base64 = (text: string): string => Buffer.from(text).toString('base64')
  const kubeconfig = file(
    'kubeconfig',
    JSON.stringify({
      apiVersion: 'v1',
      kind: 'Config',
      'current-context': 'test',
      contexts: [{ name: 'test', context: { cluster: 'test', user: 'admin' } }],
      clusters: [
        { name: 'test', cluster: { server: url, 'certificate-authority-data': base64(authority.certificatePem) } },
      ],
      users: [
        {
          name: 'admin',
          user: {
            'client-certificate-data': base64(admin.certificatePem),
            'client-key-data': base64(admin.keyPem),
          },
        },
      ],
    }),
  )
  const flags = [`--kubeconfig=${kubeconfig}`, `--cache-dir=${join(folder, 'cache')}`]
  return {
    url,
    caPem: authority.certificatePem,
    kubeconfig,
    kubectl: (args, input) => run('kubectl', [...flags, ...args], input === undefined ? {} : { input }),
  }
}

function ended(child: ChildProcess): Promise<unknown> {
  if (child.exitCode !== null || child.signalCode !== null) return Promise.resolve()
  const exited = new Promise((resolve) => child.once('exit', resolve))
  child.kill('SIGKILL')
  return exited
}
