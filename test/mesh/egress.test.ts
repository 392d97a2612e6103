// What kube-apiserver sends by CONNECT beside kubelets (the `cluster` selection: pods, webhooks, aggregated APIs): targets of
// the cloud are dialled from there, pods at the edge over the mesh by the cloud's gateway, and for the rest the reason comes.

import t from 'tap'
import { addressOf, openMesh, until } from './mesh.ts'

t.setTimeout(180_000)

const SOCKET = '/run/fulmar/egress.sock'
const lab = await openMesh(t, 'g', { pools: ['elm'], nodes: 1, relayFlags: ['--egress-socket', SOCKET] })

/** As kube-apiserver asks; then GET over what it was given. Prints the status line and the body of the answer. */
const ASK = `
const { connect } = require('net')
const [path, target] = process.argv.slice(1)
const socket = connect({ path, allowHalfOpen: true })
socket.write('CONNECT ' + target + ' HTTP/1.1\\r\\nHost: 127.0.0.1\\r\\n\\r\\n')
let text = ''
let asked = false
socket.on('data', (chunk) => {
  text += chunk
  if (asked || !text.startsWith('HTTP/1.1 200 ') || !text.includes('\\r\\n\\r\\n')) return
  asked = true
  console.log(text.split('\\r\\n')[0])
  text = ''
  socket.end('GET / HTTP/1.1\\r\\nHost: x\\r\\nConnection: close\\r\\n\\r\\n')
})
socket.on('end', () => {
  console.log(asked ? text.split('\\r\\n\\r\\n').slice(1).join() : text.split('\\r\\n')[0])
  process.exit()
})
`
async function ask(target: string): Promise<{ readonly status: string; readonly body: string }> {
  const { stdout } = await lab.exec('cloud', [process.execPath, '-e', ASK, SOCKET, target])
  const [line = '', body = ''] = stdout.split('\n')
  return { status: line.replace('HTTP/1.1 ', ''), body }
}
const clusterIpOf = (name: string): Promise<string> =>
  lab
    .exec('cloud', [
      'sh',
      '-c',
      `grep -hA12 'name: ${name}$' ${lab.manifests}/*.yaml | grep -m1 clusterIP: | cut -d' ' -f4`,
    ])
    .then(({ stdout }) => stdout.trim())

t.test('pods and Services, in the cloud and at the edge', async (t) => {
  const rows: readonly [name: string, target: string, pod: string][] = [
    ['a pod of the cloud', `${addressOf(lab, 'cloud-shop', 4)}:8080`, 'cloud-shop'],
    ['a pod at the edge', `${addressOf(lab, 'elm1-shop', 4)}:8080`, 'elm1-shop'],
    ['over IPv6', `[${addressOf(lab, 'elm1-shop', 6)}]:8080`, 'elm1-shop'],
    ['a Service of pods in the cloud', `${await clusterIpOf('web-cloud')}:80`, 'cloud-shop'],
    ['a Service of pods at the edge', `${await clusterIpOf('web-elm')}:80`, 'elm1-shop'],
  ]
  for (const [name, target, pod] of rows) {
    const { status, body } = await until(`${name}, ${target}`, async () => {
      const answer = await ask(target)
      return answer.status.startsWith('200') && answer
    })
    t.equal(status, '200 Connection established', name)
    t.match(JSON.parse(body), { pod }, name)
  }
})

t.test('the rest gets the reason', async (t) => {
  const pod = addressOf(lab, 'elm1-shop', 4)
  const rows: readonly [target: string, status: RegExp][] = [
    [`${pod}:9`, /^502 10\.\S+ is a pod of elm1: nothing listens on 10\.\S+:9$/],
    [`${pod.replace(/\d+$/, '99')}:80`, /^50[34] 10\.\S+ is a pod of elm1: no (route to|answer from) /],
    ['10.255.255.1:80', /^50[34] no (route to|answer from) 10\.255\.255\.1:80/],
    ['169.254.169.254:80', /^503 169\.254\.169\.254 is never dialled from here$/],
    ['127.0.0.1:22', /^503 127\.0\.0\.1 is never dialled from here$/],
    ['localhost:22', /^403 localhost leads to (127\.0\.0\.1|::1), which is never dialled$/],
    ['metrics.kube-system.svc:443', /^502 there is no metrics\.kube-system\.svc: /],
    ['elm1:22', /^403 elm1: elm1:22 is not open to the cloud here/],
  ]
  for (const [target, status] of rows) t.match((await ask(target)).status, status, target)
})

t.test('a pod of a site that is cut off', async (t) => {
  const pod = `${addressOf(lab, 'elm1-shop', 4)}:8080`
  await lab.cut('wan', 'elm')
  const { status } = await until('it is told that the node is gone', async () => {
    const answer = await ask(pod)
    return answer.status.startsWith('503') && answer
  })
  t.match(status, /^503 10\.\S+ is a pod of elm1: no (route to|answer from) .+; elm1 (does not answer|offline \d)/)
  await lab.heal('elm')
  await until('it is back', async () => (await ask(pod)).status.startsWith('200'))
})
