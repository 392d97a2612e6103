// The same two hops by HAProxy: a Unix socket in the cloud, TLS with certificates on both sides to the edge, and there TCP to
// the target.

import { writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { createClient, issueServer, validFor } from '../../lib/certificates.ts'
import { run } from '../../lib/net/exec.ts'
import { until } from '../../test/lib/netns.ts'
import { EDGE_ADDRESS, type Hops, type OpsWorld } from './ops-world.ts'

const FIRST_TLS_PORT = 20_000
const TIMEOUT_MS = 10_000
const COMMON = `global
  maxconn 4096
defaults
  mode tcp
  timeout connect 5s
  timeout client 1h
  timeout server 1h
`

/** @param targets ports on the node. @throws Error where there is no haproxy. */
export async function startHaproxy(world: OpsWorld, targets: readonly number[]): Promise<Hops> {
  const { folder, authority } = world
  const [, version = ''] = /version ([\d.]+)/.exec(await run('haproxy', ['-v'])) ?? []
  const validity = validFor(Date.now(), 1)
  const server = await issueServer(authority, [EDGE_ADDRESS], validity)
  const client = await createClient(authority, { commonName: 'haproxy', organization: undefined }, validity)
  const file = (name: string, content: string): string => {
    writeFileSync(join(folder, name), content)
    return join(folder, name)
  }
  const ca = file('ca.pem', authority.certificatePem)
  const serverPem = file('server.pem', server.certificatePem + server.keyPem)
  const clientPem = file('client.pem', client.certificatePem + client.keyPem)
  const socketOf = (port: number): string => join(folder, `haproxy-${port}.sock`)
  const near = targets.map(
    (port, i) => `listen near${port}
  bind unix@${socketOf(port)}
  server edge ${EDGE_ADDRESS}:${FIRST_TLS_PORT + i} ssl verify required ca-file ${ca} crt ${clientPem}
`,
  )
  const far = targets.map(
    (port, i) => `listen far${port}
  bind :${FIRST_TLS_PORT + i} ssl crt ${serverPem} ca-file ${ca} verify required
  server target 127.0.0.1:${port}
`,
  )
  const processes = [
    world.spawn(world.edge, ['haproxy', '-db', '-f', file('far.cfg', COMMON + far.join(''))]),
    world.spawn(world.cloud, ['haproxy', '-db', '-f', file('near.cfg', COMMON + near.join(''))]),
  ]
  const isUp = async (): Promise<boolean> => {
    if (processes.some(({ exitCode }) => exitCode !== null)) throw new Error('haproxy ended; it said why above')
    const listening = await world.edge.sh('ss -tlnH')
    const sockets = await world.cloud.sh('ss -xlnH')
    return listening.includes(`:${FIRST_TLS_PORT} `) && sockets.includes(socketOf(targets[0]!))
  }
  await until('haproxy', TIMEOUT_MS, isUp)
  return {
    name: 'HAProxy',
    version,
    pids: processes.map(({ pid }) => pid!),
    wayTo: (port) => ({ path: socketOf(port) }),
  }
}
