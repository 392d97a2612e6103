// Two sides of a NAT test, plain UDP without STUN: `serve ADDRESS…` answers on two ports of each address from whichever
// of them it is asked to, `probe FAMILY ADDRESS…` asks and prints what a NAT let through as JSON of NatObservation.

import { createSocket, type Socket } from 'node:dgram'
import { setTimeout as sleep } from 'node:timers/promises'

export type NatObservation = {
  /** `ADDRESS:PORT` as each server saw one socket, by server; null where nothing came back. */
  readonly mapped: readonly (string | null)[]
  /** Whose answers reached a fresh socket that had sent to the first server only. */
  readonly heard: readonly string[]
}
type Question = { readonly answerFrom: readonly number[] }
type Answer = { readonly server: string; readonly seen: string }

const PORTS = [7000, 7001] as const
const WAIT_MS = 400

const servers = (addresses: readonly string[]) =>
  addresses.flatMap((address) => PORTS.map((port) => ({ address, port })))
const family = (address: string) => (address.includes(':') ? 'udp6' : 'udp4')

async function serve(addresses: readonly string[]): Promise<void> {
  const sockets: Socket[] = []
  for (const { address, port } of servers(addresses)) {
    const socket = createSocket(family(address))
    sockets.push(socket)
    socket.on('message', (message, from) => {
      const { answerFrom } = JSON.parse(message.toString()) as Question
      for (const index of answerFrom) {
        const { address: own, port: ownPort } = sockets[index]!.address()
        const answer: Answer = { server: `${own}:${ownPort}`, seen: `${from.address}:${from.port}` }
        sockets[index]!.send(JSON.stringify(answer), from.port, from.address)
      }
    })
    await new Promise<void>((resolve) => socket.bind(port, address, resolve))
  }
  console.log('serving')
}

async function probe(addresses: readonly string[]): Promise<NatObservation> {
  const all = servers(addresses)
  const ask = async (
    asked: readonly number[],
    answerFrom: (index: number) => readonly number[],
  ): Promise<readonly Answer[]> => {
    const socket = createSocket(family(addresses[0]!))
    const answers: Answer[] = []
    socket.on('message', (message) => answers.push(JSON.parse(message.toString()) as Answer))
    await new Promise<void>((resolve) => socket.bind(0, resolve))
    for (const index of asked) {
      const question: Question = { answerFrom: answerFrom(index) }
      socket.send(JSON.stringify(question), all[index]!.port, all[index]!.address)
    }
    await sleep(WAIT_MS)
    socket.close()
    return answers
  }
  const everyone = all.map((_, index) => index)
  const [mapping, filtering] = await Promise.all([ask(everyone, (index) => [index]), ask([0], () => everyone)])
  return {
    mapped: all.map(({ address, port }) => mapping.find(({ server }) => server === `${address}:${port}`)?.seen ?? null),
    heard: filtering.map(({ server }) => server).toSorted(),
  }
}

const [mode, ...addresses] = process.argv.slice(2)
if (mode === 'serve') await serve(addresses)
if (mode === 'probe') console.log(JSON.stringify(await probe(addresses)))
