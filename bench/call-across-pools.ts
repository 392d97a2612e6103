// What does a call from a pod to a Service of another pool cost, next to the same call over the same two WireGuard devices
// set up by hand? Two labs of one plan run side by side: in one Fulmar joins the pools; in the other nothing of ours runs,
// and wg and ip do what a person would type. Both sites have public addresses, so that both paths are the same.

import { cgroupRoot } from '../test/lab/machine.ts'
import { readFolder } from '../test/lab/folder.ts'
import { openLab, type Lab } from '../test/lab/lab.ts'
import { cgroupCpuMs } from './harness/cpu.ts'
import { driveLoad } from './harness/load-client.ts'
import { untilOn } from './harness/paths.ts'
import type { Comparison, Prepared, Side } from './harness/question.ts'
import { joinByHand } from './harness/wireguard-by-hand.ts'

const CLIENT = 'a1-client'
const SERVICE = 'web-b'
const LOAD = `${import.meta.dirname}/harness/http-load.ts`

export const question: Comparison = {
  kind: 'comparison',
  text: 'What does a call from a pod to a Service of another pool cost, next to the same over WireGuard set up by hand?',
  rounds: 20,
  callsPerRound: 200,
  bounds: { p50: 1.15, cpu: 1.25 },
  prepare,
}

async function prepare(progress: (line: string) => void, signal: AbortSignal): Promise<Prepared> {
  const undo: (() => unknown)[] = []
  const close = async (): Promise<void> => {
    for (const step of undo.splice(0).toReversed()) await step()
  }
  const open = async (id: string, until: 'all' | 'hosts'): Promise<Lab> => {
    const nat = new Map([['a', 'none'] as const, ['b', 'none'] as const])
    const options = { id, pools: ['a', 'b'], nodes: 1, nat, until }
    const lab = await openLab(options, { signal, progress: (line) => progress(`${id}: ${line}`) })
    undo.push(() => lab.close())
    return lab
  }
  const sideOf = (name: string, lab: Lab, url: string): Side => {
    const load = driveLoad(lab.spawn(CLIENT, [process.execPath, LOAD, url], { stdio: 'pipe' }))
    undo.push(() => load.close())
    const groups = ['a1', 'b1'].map(
      (host) => `${cgroupRoot()}/${lab.topology.hosts.find(({ name }) => name === host)!.cgroup}`,
    )
    const cpuMs = (): number => groups.map(cgroupCpuMs).reduce((sum, ms) => sum + ms, 0)
    return {
      name,
      run: async (calls) => {
        const before = cpuMs()
        const latenciesMs = await load.run(calls)
        return { latenciesMs, cpuMs: cpuMs() - before }
      },
    }
  }
  try {
    const fulmar = await open('benchfulmar', 'all')
    const hand = await open('benchhand', 'hosts')
    const interest = () => fulmar.exec(CLIENT, ['curl', '-s', '-m', '1', `http://${SERVICE}.shop/`])
    const implementation = await untilOn(fulmar, ['a', 'b'], 'direct', interest, signal)
    progress(`direct; WireGuard by ${implementation} on both sides`)
    await joinByHand(hand, 'a1', 'b1', implementation)
    const service = readFolder(fulmar.manifests).services.find(({ metadata }) => metadata?.name === SERVICE)
    const pod = hand.topology.pods.find(({ host }) => host === 'b1-shop')!
    return {
      subject: sideOf('Fulmar', fulmar, `http://${service!.spec!.clusterIP}/`),
      peer: sideOf('by hand', hand, `http://${pod.addresses[0]}:${pod.tcpPorts[0]}/`),
      notes: [`WireGuard by ${implementation}; CPU is that of both nodes with their pods and daemons`],
      close,
    }
  } catch (error) {
    await close()
    throw error
  }
}
