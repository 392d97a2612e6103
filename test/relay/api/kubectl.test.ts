import { execFile, spawn } from 'node:child_process'
import { randomBytes } from 'node:crypto'
import { existsSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { promisify } from 'node:util'
import t from 'tap'
import { createClient, validFor, type KeyPair } from '../../../lib/certificates.ts'
import { createApiClient } from '../../../lib/k8s/api-client.ts'
import { NODES } from '../../../lib/k8s/objects.ts'
import { createApi } from '../../../relay/api/api-server.ts'
import { anotherAuthority, createMesh } from '../mesh.ts'
import { log, nodeManifest, temporaryFolder, write } from './serving.ts'
import { until } from '../../lib/until.ts'

const run = promisify(execFile)
const SHOP = join(import.meta.dirname, '../../lab/shop')
const hasKubectl = (process.env['PATH'] ?? '').split(':').some((folder) => existsSync(join(folder, 'kubectl')))

t.test('kubectl over TLS', { skip: hasKubectl ? false : 'kubectl is not installed' }, async (t) => {
  const home = temporaryFolder(t)
  const mesh = await createMesh(t)
  const authority = join(home, 'ca.crt')
  writeFileSync(authority, mesh.authority.certificatePem)

  const listen = async (directory: string) => {
    const api = createApi({ directory, stateDir: temporaryFolder(t), tokenKey: randomBytes(32), log })
    mesh.holds(api.run(mesh.signal))
    const { port } = await mesh.listen({ api: api.handle })
    await until(() => api.status()!.objects > 0, 'the folder is read')
    return [`--server=https://127.0.0.1:${port}`, `--certificate-authority=${authority}`]
  }
  const identity = async (commonName: string, organization: string) =>
    keep(commonName, await createClient(mesh.authority, { commonName, organization }, validFor(Date.now(), 1)))
  const keep = (name: string, pair: KeyPair) => {
    const [cert, key] = [join(home, `${name}.crt`), join(home, `${name}.key`)]
    writeFileSync(cert, pair.certificatePem)
    writeFileSync(key, pair.keyPem)
    return [`--client-certificate=${cert}`, `--client-key=${key}`]
  }
  const env = { PATH: process.env['PATH'], HOME: home, KUBECONFIG: '/dev/null' }
  const kubectl = async (...argv: readonly string[]) => {
    const running = run('kubectl', argv, { env })
    running.child.stdin?.end()
    return (await running).stdout
  }
  const refused = async (command: Promise<string>, words: RegExp) =>
    t.match(await command.catch((error: Error) => error.message), words)
  const admin = await identity('admin', 'system:masters')

  await t.test('get', async (t) => {
    const server = await listen(SHOP)
    const get = (...argv: readonly string[]) => kubectl(...server, ...admin, 'get', ...argv)
    const all = await get('nodes,services,endpointslices,pods,nodepools,gateways', '-A')
    for (const row of [
      /^node\/harbor1 +Unknown +<none> +harbor +\d+s$/m,
      /^kube-system +service\/kube-dns +ClusterIP +10\.96\.0\.10 +<none> +53\/UDP,53\/TCP +\d+s$/m,
      /^shop +endpointslice\.discovery\.k8s\.io\/inventory-ipv6 +IPv6 +8080 +fd00:244:3::10,fd00:244:4::10 +\d+s$/m,
      /^shop +pod\/plant1-inventory +1\/1 +Running +0 +\d+s$/m,
      /nodepool\.apps\.openyurt\.io\/plant +Edge/,
      /gateway\.raven\.openyurt\.io\/harbor +harbor1,harbor2/,
    ])
      t.match(all, row)
    t.match(await get('svc', '-n', 'shop', '-o', 'wide'), /inventory .* 10\.96\.0\.40,fd00:96::28 +app=inventory/)
    t.match(await get('node', 'plant1', '-o', 'yaml'), /kind: Node\nmetadata:[^]*podCIDRs:\n +- 10\.244\.3\.0\/24/)
    t.match(await get('ns'), /^shop +Active/m)
    t.match(JSON.parse(await get('pods', '-A', '-l', 'app=client', '-o', 'json')), { items: { length: 5 } })
    await refused(get('pods', '-n', 'shop', 'ghost'), /Error from server \(NotFound\): pods "ghost" not found/)
    await refused(kubectl(...server, ...admin, 'delete', 'node', 'plant1'), /MethodNotAllowed.*edit its files/)
    // Without any credentials kubectl would ask a person for a name before it asks the server.
    await refused(kubectl(...server, '--token=x', 'get', 'nodes'), /Unauthorized/)
    const stranger = await createClient(
      await anotherAuthority(),
      { commonName: 'admin', organization: 'system:masters' },
      validFor(Date.now(), 1),
    )
    await refused(kubectl(...server, ...keep('stranger', stranger), 'get', 'nodes'), /Unauthorized/)
  })

  await t.test('watch, and a node that writes its status', async (t) => {
    const directory = temporaryFolder(t)
    write(directory, { 'a.yaml': nodeManifest('a') })
    const server = await listen(directory)
    const watch = spawn('kubectl', [...server, ...admin, 'get', 'nodes', '-w'], {
      env,
      stdio: ['ignore', 'pipe', 'inherit'],
    })
    t.teardown(() => watch.kill())
    let seen = ''
    watch.stdout.setEncoding('utf8').on('data', (text: string) => (seen += text))
    await until(() => /^a +Unknown/m.test(seen), 'kubectl lists')
    write(directory, { 'b.yaml': nodeManifest('b') })
    await until(() => /^b +Unknown/m.test(seen), 'kubectl sees the edit')
    // Debian 12's kubectl has no --subresource: the node writes with our own client.
    const subject = { commonName: 'system:node:a', organization: 'system:nodes' }
    const { certificatePem: cert, keyPem: key } = await createClient(mesh.authority, subject, validFor(Date.now(), 1))
    const node = createApiClient({
      server: server[0]!.slice('--server='.length),
      ca: mesh.authority.certificatePem,
      cert,
      key,
    })
    t.teardown(() => node.close())
    const status = { status: { conditions: [{ type: 'Ready', status: 'True' }] } }
    await node.patch(NODES, { name: 'a' }, status, { subresource: 'status' })
    await until(() => /^a +Ready/m.test(seen), 'kubectl sees the status')
    await refused(
      node.patch(NODES, { name: 'b' }, status, { subresource: 'status' }).then(String),
      /User "system:node:a" cannot patch resource "nodes\/status"/,
    )
  })
})
