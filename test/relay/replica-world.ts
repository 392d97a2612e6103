// Several relays of one mesh, each at a port of its own, and agents that hold sessions with them, in one process.

import { openOpsClient, type OpsClient } from '../../agent/ops-client.ts'
import { dialTarget } from '../../agent/ops-dial-client.ts'
import { createClient, validFor, type KeyPair } from '../../lib/certificates.ts'
import { rendezvousOrder } from '../../lib/rendezvous.ts'
import type { Replica } from '../../lib/replicas.ts'
import { runReplicas, type Replicas } from '../../relay/replicas-loop.ts'
import { runOpsSessions } from '../../relay/session-server.ts'
import { runTlsServer } from '../../relay/tls-server.ts'
import { freeTcpPorts } from '../lib/free-ports.ts'
import { createMesh, log, type Mesh } from './mesh.ts'
import { echo, listen } from './ops.ts'
import { until } from '../lib/until.ts'

type Test = Parameters<typeof createMesh>[0]
export type Relay = Replicas & { readonly url: string; readonly port: number; readonly stop: () => void }
type World = {
  readonly mesh: Mesh
  readonly relays: readonly Relay[]
  /** Whose certificate says that it is a replica. */
  readonly replica: KeyPair
  readonly agent: (
    node: string,
    kubeletPort: number,
    relays?: readonly Relay[],
  ) => Promise<OpsClient & { stop(): void }>
  readonly relayOf: (url: string) => Relay
}

export async function createWorld(t: Test, count: number): Promise<World> {
  const mesh = await createMesh(t)
  // Each relay must know where the others will be.
  const ports = await freeTcpPorts(count)
  const replicas = ports.map((port): Replica => [`https://127.0.0.1:${port}`])
  const relays: Relay[] = []
  for (const [index, port] of ports.entries()) {
    const life = new AbortController()
    const signal = AbortSignal.any([mesh.signal, life.signal])
    const rate = { perSecond: 10_000, burst: 10_000 }
    const server = runReplicas(
      {
        others: replicas.filter((_, other) => other !== index),
        authority: mesh.authority,
        sessions: (onPresence) => runOpsSessions({ relay: `r${index}`, replicas, onPresence, rate, log }, signal),
        log,
      },
      signal,
    )
    const unused = (): never => {
      throw new Error('not in this test')
    }
    const tls = await runTlsServer(
      {
        listen: [{ address: '127.0.0.1', port }],
        certificate: mesh.server,
        authorityPem: mesh.authority.certificatePem,
        routes: {
          ...{ join: unused, signal: unused, packets: unused, api: unused },
          ops: server.sessions.upgrade,
          replica: server.upgrade,
        },
        log,
      },
      signal,
    )
    mesh.holds(tls.closed)
    mesh.holds(server.closed)
    relays.push({ ...server, url: replicas[index]![0], port, stop: () => life.abort() })
  }
  await until(() => relays.every(({ list }) => list().every(({ state }) => state === 'connected')), 'links')
  return {
    mesh,
    relays,
    replica: await createClient(
      mesh.authority,
      { commonName: 'fulmar-relay', organization: 'system:fulmar:relays' },
      validFor(Date.now(), 1),
    ),
    relayOf: (url) => relays.find((relay) => relay.url === url)!,
    async agent(node, kubeletPort, only) {
      const life = new AbortController()
      const { certificatePem, keyPem } = await mesh.node(node)
      let known: readonly Replica[] = [[(only ?? relays)[0]!.url]]
      const client = openOpsClient(
        {
          identity: {
            ...{ node, certificatePem, keyPem, caPem: mesh.authority.certificatePem },
            ...{ relays: [known[0]![0]], stun: [], server: '' },
          },
          relays: {
            current: () => only?.map(({ url }): Replica => [url]) ?? known,
            told: (told) => (known = told),
          },
          times: { quietMs: 50 },
          dial: (host, port) => dialTarget({ node, kubeletPort, targets: [] }, host, port),
          log,
        },
        AbortSignal.any([mesh.signal, life.signal]),
      )
      mesh.holds(client.closed)
      const wanted = Math.min(2, only?.length ?? relays.length)
      await until(() => client.state().sessions.filter(({ state }) => state === 'connected').length === wanted, node)
      return { ...client, stop: () => life.abort() }
    },
  }
}

/** URLs of the relays with which it has sessions. */
export const connected = (client: OpsClient): readonly string[] =>
  client
    .state()
    .sessions.filter(({ state }) => state === 'connected')
    .map(({ url }) => url)

/** Three relays, of which the first two hold the agent edge-7, and the third knows it. @returns its echo server's port too. */
export async function heldByTwo(t: Test) {
  const { relays, agent, relayOf } = await createWorld(t, 3)
  const { port } = await listen(t, echo)
  const client = await agent('edge-7', port)
  const order = rendezvousOrder(
    'edge-7',
    relays.map(({ url }) => url),
  )
  await until(() => connected(client).toSorted().join() === order.slice(0, 2).toSorted().join())
  const [first, second, third] = order.map(relayOf) as [Relay, Relay, Relay]
  await until(() => third.list().every(({ nodes }) => nodes === 1), 'it is known who has it')
  return { first, second, third, client, port }
}
