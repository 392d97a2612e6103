// The same way by konnectivity: its server in the cloud takes HTTP CONNECT on a Unix socket, its agent at the edge dials it by
// TLS with certificates on both sides and dials the target. Its programs are not installed: they are in the folder of
// $KONNECTIVITY, `server` and `agent` as Go builds them from cmd/ of sigs.k8s.io/apiserver-network-proxy, without the line of its
// go.mod that replaces konnectivity-client, which a downloaded module does not hold.

import { writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { createClient, issueServer, validFor } from '../../lib/certificates.ts'
import { until } from '../../test/lib/netns.ts'
import { CLOUD_ADDRESS, type Hops, type OpsWorld } from './ops-world.ts'

const AGENT_PORT = 8132
const TIMEOUT_MS = 20_000

/** @param programs the folder. @throws Error where they are not there or do not start. */
export async function startKonnectivity({ cloud, edge, ...world }: OpsWorld, programs: string): Promise<Hops> {
  const { folder, authority } = world
  const [server, agent] = [join(programs, 'server'), join(programs, 'agent')]
  const validity = validFor(Date.now(), 1)
  const subject = { commonName: 'konnectivity', organization: undefined }
  const [near, far] = [
    await issueServer(authority, [CLOUD_ADDRESS], validity),
    await createClient(authority, subject, validity),
  ]
  const file = (name: string, content: string): string => {
    writeFileSync(join(folder, name), content)
    return join(folder, name)
  }
  const ca = file('konnectivity-ca.pem', authority.certificatePem)
  const socket = join(folder, 'konnectivity.sock')
  const processes = [
    world.spawn(cloud, [
      ...[server, '--mode=http-connect', '--server-port=0', `--uds-name=${socket}`, `--agent-port=${AGENT_PORT}`],
      ...[`--cluster-ca-cert=${ca}`, `--cluster-cert=${file('konnectivity-server.pem', near.certificatePem)}`],
      ...[
        `--cluster-key=${file('konnectivity-server.key', near.keyPem)}`,
        '--stderrthreshold=FATAL',
        '--logtostderr=false',
      ],
    ]),
    world.spawn(edge, [
      ...[agent, `--proxy-server-host=${CLOUD_ADDRESS}`, `--proxy-server-port=${AGENT_PORT}`, `--ca-cert=${ca}`],
      ...[`--agent-cert=${file('konnectivity-agent.pem', far.certificatePem)}`],
      ...[
        `--agent-key=${file('konnectivity-agent.key', far.keyPem)}`,
        '--stderrthreshold=FATAL',
        '--logtostderr=false',
      ],
    ]),
  ]
  const isUp = async (): Promise<boolean> => {
    if (processes.some(({ exitCode }) => exitCode !== null)) throw new Error('konnectivity ended; it said why above')
    const established = await cloud.sh(`ss -tnH state established sport = :${AGENT_PORT}`)
    return established !== '' && (await cloud.sh('ss -xlnH')).includes(socket)
  }
  await until('konnectivity', TIMEOUT_MS, isUp)
  return {
    ...{ name: 'konnectivity', version: `of ${programs}`, pids: processes.map(({ pid }) => pid!) },
    wayTo: (port) => ({ path: socket, connect: `127.0.0.1:${port}` }),
  }
}
