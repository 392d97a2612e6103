// A relay with sessions of agents, and agents of it, in one process on loopback.

import { createServer, type AddressInfo, type Server, type Socket } from 'node:net'
import { dialTarget } from '../../agent/ops-dial-client.ts'
import { openOpsClient, type OpsClient, type OpsOptions } from '../../agent/ops-client.ts'
import { parseTarget } from '../../agent/ops-targets.ts'
import type { NodeIdentity } from '../../lib/net/identity.ts'
import { runOpsSessions, type OpsOptions as RelayOptions, type OpsSessions } from '../../relay/session-server.ts'
import { createMesh, log, type Mesh } from './mesh.ts'
import { until } from '../lib/until.ts'

type Test = { teardown(fn: () => unknown): unknown }

export type OpsWorld = {
  readonly mesh: Mesh
  readonly relay: OpsSessions
  readonly port: number
  readonly identity: (node: string) => Promise<NodeIdentity>
  /** An agent whose kubelet listens on this port; resolves when its session is there. */
  readonly agent: (node: string, kubeletPort: number, options?: AgentOptions) => Promise<Agent>
}
export type Agent = { readonly client: OpsClient; readonly stop: () => Promise<void> }
type AgentOptions = Partial<Pick<OpsOptions, 'dial' | 'times'>> & { readonly targets?: readonly string[] }

export async function createOps(
  t: Test,
  times: RelayOptions['times'] = {},
  rate = { perSecond: 10_000, burst: 10_000 },
): Promise<OpsWorld> {
  const mesh = await createMesh(t)
  const relay = runOpsSessions({ relay: 'relay-1', log, times, rate }, mesh.signal)
  mesh.holds(relay.closed)
  const { port } = await mesh.listen({ ops: relay.upgrade })
  const identity = async (node: string): Promise<NodeIdentity> => {
    const { certificatePem, keyPem } = await mesh.node(node)
    const relays = [`https://127.0.0.1:${port}`]
    return { node, certificatePem, keyPem, caPem: mesh.authority.certificatePem, relays, stun: [], server: '' }
  }
  return {
    mesh,
    relay,
    port,
    identity,
    async agent(node, kubeletPort, { targets = [], ...options } = {}) {
      const life = new AbortController()
      const policy = { node, kubeletPort, targets: targets.map(parseTarget) }
      const dial = (host: string, target: number) => dialTarget(policy, host, target)
      const client = openOpsClient(
        { identity: await identity(node), dial, log, ...options },
        AbortSignal.any([mesh.signal, life.signal]),
      )
      mesh.holds(client.closed)
      await until(() => client.state().state === 'connected' && relay.absence(node) === undefined)
      const stop = (): Promise<void> => {
        life.abort()
        return client.closed
      }
      return { client, stop }
    },
  }
}

/** A TCP server on loopback that half-closes as its handler says. */
export async function listen(t: Test, onSocket: (socket: Socket) => void): Promise<Server & { readonly port: number }> {
  const sockets = new Set<Socket>()
  const server = createServer({ allowHalfOpen: true }, (socket) => {
    sockets.add(socket)
    socket.on('error', () => {})
    socket.once('close', () => sockets.delete(socket))
    onSocket(socket)
  })
  await new Promise<void>((resolve) => server.listen(0, '127.0.0.1', resolve))
  t.teardown(() => {
    for (const socket of sockets) socket.destroy()
    server.close()
  })
  return Object.assign(server, { port: (server.address() as AddressInfo).port })
}

/** For `listen`. */
export const echo = (socket: Socket): void => void socket.pipe(socket)

/** A port of a node itself. */
export const self = (port: number, host = 'edge-7') => ({ host, port })

/** All that a stream brings, to its end. */
export async function textOf(stream: AsyncIterable<Buffer>): Promise<string> {
  const chunks: Buffer[] = []
  for await (const chunk of stream) chunks.push(chunk)
  return Buffer.concat(chunks).toString()
}

export const NEVER = new AbortController().signal
