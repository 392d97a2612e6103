// Keeps the gateway's nft table loaded: at start, and again within a second after somebody flushed it.

import type { Log } from '../lib/log.ts'
import { ExecError, run } from '../lib/net/exec.ts'
import { monitorNft } from '../lib/net/nft-monitor.ts'
import { createUpkeep } from '../lib/net/upkeep.ts'
import { NFT_TABLE_GATEWAY } from '../lib/owned.ts'
import { gatewayTable, isComplete, type GatewayPorts } from './port-sharing.ts'

export type PortSharing = {
  /** The table soon says so. */
  readonly setPorts: (ports: GatewayPorts) => void
}

/** Resolves once the table is loaded. @throws ExecError if nft refuses it. */
export async function runPortSharing(first: GatewayPorts, log: Log, signal: AbortSignal): Promise<PortSharing> {
  let ports = first
  let loaded = first
  const load = async (): Promise<void> => {
    const wanted = ports
    await run('nft', ['-f', '-'], { input: gatewayTable(wanted) })
    loaded = wanted
  }
  await load()
  const repair = createUpkeep(
    {
      pass: async () => {
        const complete = isComplete(await listTable())
        if (complete && loaded === ports) return
        if (!complete) log.warn({ table: NFT_TABLE_GATEWAY }, 'somebody removed our nft rules; loading them again')
        await load()
      },
      onError: (err) => log.error({ err }, 'the nft table of the gateway could not be loaded; probes fail until it is'),
    },
    signal,
  )
  const onLine = (line: string): void => {
    if (line.includes(NFT_TABLE_GATEWAY)) repair.trigger()
  }
  void monitorNft({ onLine, onStart: repair.trigger, log }, signal)
  return {
    setPorts: (next) => {
      ports = next
      repair.trigger()
    },
  }
}

/** @returns '' where there is no such table. */
async function listTable(): Promise<string> {
  try {
    return await run('nft', ['list', 'table', 'inet', NFT_TABLE_GATEWAY])
  } catch (error) {
    if (error instanceof ExecError && error.stderr.includes('No such file or directory')) return ''
    throw error
  }
}
