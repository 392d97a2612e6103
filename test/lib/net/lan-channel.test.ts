// The voice of daemons on a LAN: what members say arrives with its sender proven, a question is answered where it came
// from, and a node whose agent is dead says so by its kernel.

import 'reflect-metadata'
import t from 'tap'
import { createAuthority, createClient, validFor } from '../../../lib/certificates.ts'
import type { HeardMessage } from '../../../lib/lan.ts'
import { createLog } from '../../../lib/log.ts'
import { openLanChannel, type LanChannel } from '../../../lib/net/lan-channel.ts'
import type { LanSource } from '../../../lib/wire/lan.ts'
import { freeUdpPorts } from '../free-ports.ts'

const ended = new AbortController()
t.teardown(() => ended.abort())
const log = createLog('agent', 'silent')
const validity = validFor(Date.now(), 1)
const ca = await createAuthority('mesh', validity)
const [agentPort, gatewayPort] = await freeUdpPorts()
const [nobodysPort, otherPort] = await freeUdpPorts()

type Speaker = { readonly channel: LanChannel; readonly heard: () => Promise<HeardMessage> }

async function open(node: string, source: LanSource, port: number, identity = {}): Promise<Speaker> {
  const subject = { commonName: `system:node:${node}`, organization: 'system:nodes' }
  const { certificatePem, keyPem } = await createClient(ca, subject, validity)
  const waiting: ((said: HeardMessage) => void)[] = []
  const channel = openLanChannel(
    {
      identity: { certificatePem, keyPem, caPem: ca.certificatePem, ...identity },
      source,
      port,
      boot: 1,
      isMember: (name) => name.startsWith('bay'),
      onMessage: (said, answer) => {
        waiting.shift()?.(said)
        if (said.kind !== 'presence' || !said.asks) return
        answer(channel.encode({ kind: 'presence', source, asks: false, pool: 'bay' })!.whole)
      },
      log,
    },
    ended.signal,
  )
  return { channel, heard: () => new Promise((resolve) => waiting.push(resolve)) }
}

const agent = await open('bay2', 'agent', agentPort)
const gateway = await open('bay1', 'gateway', gatewayPort)
const question = () => gateway.channel.encode({ kind: 'presence', source: 'gateway', asks: true, pool: 'bay' })!.whole

for (const address of ['127.0.0.1', '::1'])
  t.test(address, async (t) => {
    const hears = agent.heard()
    const answered = gateway.heard()
    // The sockets may not be bound yet.
    for (let i = 0, done = false; !done && i < 100; i++) {
      gateway.channel.ask(question(), agentPort, address, () => undefined)
      done = await Promise.race([answered.then(() => true), new Promise<false>((r) => setTimeout(r, 50, false))])
    }
    t.match(await hears, { kind: 'presence', source: 'gateway', asks: true, node: 'bay1' })
    t.match(await answered, { kind: 'presence', source: 'agent', asks: false, node: 'bay2' })
    await new Promise<void>((refused) => gateway.channel.ask(question(), nobodysPort, address, refused))
    t.pass('where nobody listens, the kernel says so')
  })

t.test('without a CA or a key: silent, deaf, and a problem', async (t) => {
  const { channel } = await open('bay3', 'agent', otherPort, { caPem: 'none', keyPem: 'none' })
  t.equal(channel.encode({ kind: 'presence', source: 'agent', asks: false, pool: 'bay' }), undefined)
  t.match(channel.problems(), [/CA certificate/, /certificate and key/])
  t.strictSame(agent.channel.problems(), [])
})
