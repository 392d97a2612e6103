import { createHash } from 'node:crypto'
import t from 'tap'
import type { Identity } from '../../lib/identity.ts'
import { grantOf, parseUsers } from '../../relay/ops-access.ts'

const hash = (token: string) => createHash('sha256').update(token).digest('hex')
const basic = (text: string) => `Basic ${Buffer.from(text).toString('base64')}`
const nobody: Identity = { kind: 'anonymous' }

t.test('users', async (t) => {
  const users = parseUsers(`
# programs
prometheus ${hash('p')} edge-*,cloud-1 10250,9100   # of the shop
metrics    ${hash('m').toUpperCase()} * *
jane       -    edge-7    Console,192.168.1.20:502
`)
  t.match(users, [
    { name: 'prometheus', nodes: ['edge-*', 'cloud-1'], targets: ['10250', '9100'] },
    { name: 'metrics', nodes: ['*'], targets: undefined },
    { name: 'jane', hash: undefined, targets: ['console', '192.168.1.20:502'] },
  ])
  const rows: readonly [line: string, mistake: RegExp][] = [
    ['prometheus', /line 1: is not USER/],
    [`a ${hash('x')} n 1 more`, /is not USER/],
    [`-a ${hash('x')} n 1`, /no user/],
    [`a secret n 1`, /64 digits/],
    [`a ${hash('x')} N_ 1`, /no names of nodes/],
    [`a ${hash('x')} n 0`, /0 is neither a port nor a target/],
    [`a ${hash('x')} n 1,-x`, /-x is neither a port nor a target/],
    [`a ${hash('x')} n 1,,2`, / is neither a port nor a target/],
    [`a ${hash('x')} n 1,*`, /\* is neither a port nor a target/],
    [`a ${hash('x')} n h:0`, /h:0 is neither a port nor a target/],
    [`a - N_ 1`, /no names of nodes/],
    [`b\na ${hash('x')} n 70000`, /line 1.*; line 2/],
  ]
  for (const [line, mistake] of rows) t.throws(() => parseUsers(line), { message: mistake }, line)
})

t.test('who may dial what', async (t) => {
  const users = parseUsers(`prometheus ${hash('p')} edge-*,cloud.1 10250,9100\nmetrics ${hash('m')} * *`)
  const rows: readonly [caller: Identity, header: string | undefined, node: string, port: number, user: string][] = [
    [nobody, 'Bearer p', 'edge-7', 10250, 'prometheus'],
    [nobody, 'bearer  p', 'edge-7', 9100, 'prometheus'],
    [nobody, basic('prometheus:p'), 'edge-', 10250, 'prometheus'],
    [nobody, 'Bearer p', 'cloud.1', 10250, 'prometheus'],
    [nobody, 'Bearer m', 'anything', 22, 'metrics'],
    [{ kind: 'user', user: 'admin', groups: ['system:masters'] }, undefined, 'edge-7', 1, 'admin'],
    // And who may not.
    [nobody, 'Bearer p', 'edge-7', 22, ''],
    [nobody, 'Bearer p', 'cloud-1', 10250, ''],
    [nobody, 'Bearer p', 'an-edge-7', 10250, ''],
    [nobody, 'Bearer q', 'edge-7', 10250, ''],
    [nobody, basic('metrics:p'), 'edge-7', 10250, ''],
    [nobody, basic('p'), 'edge-7', 10250, ''],
    [nobody, 'Bearer', 'edge-7', 10250, ''],
    [nobody, `Bearer ${'p'.repeat(5000)}`, 'edge-7', 10250, ''],
    [nobody, undefined, 'edge-7', 10250, ''],
    [{ kind: 'node', node: 'edge-7' }, undefined, 'edge-7', 10250, ''],
    [{ kind: 'user', user: 'someone', groups: [] }, undefined, 'edge-7', 10250, ''],
  ]
  for (const [caller, header, node, port, user] of rows) {
    const grant = grantOf(caller, header, users)
    t.equal(grant?.mayDial({ node, host: node, port }) === true ? grant.user : '', user, `${header} ${node}:${port}`)
  }
})

t.test('targets of a node, and users with a certificate', async (t) => {
  const users = parseUsers(`
jane  -           edge-7  console,plc.lan:502,9100
jane  -           edge-8  *
robot ${hash('r')} edge-*  console
`)
  const jane: Identity = { kind: 'user', user: 'jane', groups: ['developers'] }
  const rows: readonly [caller: Identity, header: string | undefined, node: string, host: string, may: boolean][] = [
    [jane, undefined, 'edge-7', 'console', true],
    [jane, undefined, 'edge-7', 'CONSOLE', true],
    [jane, undefined, 'edge-7', 'plc.lan', true],
    [jane, undefined, 'edge-7', 'other', false],
    [jane, undefined, 'edge-7', 'edge-7', false],
    // The port of the node is no target that is called so.
    [jane, undefined, 'edge-7', '9100', false],
    [jane, undefined, 'edge-8', 'anything', true],
    [jane, undefined, 'edge-9', 'console', false],
    [nobody, 'Bearer r', 'edge-9', 'console', true],
    [nobody, 'Bearer r', 'edge-9', 'edge-9', false],
    [{ ...jane, user: 'robot' }, undefined, 'edge-9', 'console', false],
    [nobody, basic('jane:-'), 'edge-7', 'console', false],
    [{ kind: 'node', node: 'jane' }, undefined, 'edge-7', 'console', false],
  ]
  for (const [caller, header, node, host, may] of rows) {
    const grant = grantOf(caller, header, users)
    t.equal(grant?.mayDial({ node, host, port: 502 }) ?? false, may, `${header} ${host} of ${node}`)
  }
})
