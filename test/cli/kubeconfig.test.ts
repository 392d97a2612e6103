import { execFile } from 'node:child_process'
import { X509Certificate } from 'node:crypto'
import { join } from 'node:path'
import { promisify } from 'node:util'
import t from 'tap'
import { parse } from 'yaml'
import { createMesh, echoIdentity } from '../relay/mesh.ts'

const run = promisify(execFile)
const CLI = new URL('../../cli/main.ts', import.meta.url).pathname

t.test('kubectl gets a certificate that the relay takes for that user', async (t) => {
  const mesh = await createMesh(t)
  const { port } = await mesh.listen({ api: echoIdentity })
  const server = `https://127.0.0.1:${port}`
  const { stdout } = await run(process.execPath, [
    CLI,
    'kubeconfig',
    '--user',
    'ada',
    '--server',
    server,
    '--state-dir',
    mesh.stateDir,
  ])
  const { clusters, users, contexts, 'current-context': current } = parse(stdout)
  t.match(contexts, [{ name: current, context: { cluster: clusters[0].name, user: 'ada' } }])
  t.equal(clusters[0].cluster.server, server)
  const decode = (data: string): string => Buffer.from(data, 'base64').toString()
  const { 'client-certificate-data': certificate, 'client-key-data': key } = users[0].user
  t.equal(decode(clusters[0].cluster['certificate-authority-data']), mesh.authority.certificatePem)
  t.equal(new X509Certificate(decode(certificate)).subject, 'O=system:masters\nCN=ada')
  const { Agent, get } = await import('node:https')
  const agent = new Agent({ ca: mesh.authority.certificatePem, cert: decode(certificate), key: decode(key) })
  const caller = await new Promise((resolve, reject) => {
    get(`${server}/api`, { agent }, (response) =>
      response.on('data', (body: Buffer) => resolve(JSON.parse(body.toString()))),
    ).on('error', reject)
  })
  agent.destroy()
  t.same(caller, { kind: 'user', user: 'ada', groups: ['system:masters'] })
  const elsewhere = await run(process.execPath, [
    CLI,
    'kubeconfig',
    '--server',
    server,
    '--state-dir',
    join(mesh.stateDir, 'x'),
  ])
  t.match(elsewhere.stderr, /^fulmar kubeconfig: there was no CA in /, 'a machine that is no relay')
  await t.rejects(
    run(process.execPath, [
      CLI,
      'kubeconfig',
      '--user',
      'system:node:h1',
      '--server',
      server,
      '--state-dir',
      mesh.stateDir,
    ]),
    {
      code: 64,
      stderr: /--user "system:node:h1": is not a user/,
    },
  )
})
