// A miniupnpd as a router runs it, for tests: PCP and NAT-PMP on its LAN, mappings as nft rules in a table of its own.

import { spawn, type ChildProcess } from 'node:child_process'
import { once } from 'node:events'
import { mkdtempSync, rmSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { createInterface } from 'node:readline'
import { find } from '../../lib/net/preflight.ts'
import type { Host } from './netns.ts'

/** For `skip`: false where it is there. */
export const withoutMiniupnpd: string | false =
  find('miniupnpd') === undefined && 'miniupnpd is not installed: apt-get install miniupnpd-nftables'

export type MiniupnpdOptions = {
  /** Devices of the router. */
  readonly lan: string
  readonly wan: string
  /** Instead of the first address of `wan`; must be one that miniupnpd does not take for private or reserved. */
  readonly external?: string
  /** Of what it grants at the most. */
  readonly lifetimeSeconds?: number
}

/**
 * A table with the chains that miniupnpd fills. A mapping counts in this table only: where another one drops, that one must
 * let `ct status dnat` pass.
 * @param forward lines before what miniupnpd accepts. @param postrouting lines for what leaves.
 */
export const miniupnpdRules = (forward: readonly string[] = [], postrouting: readonly string[] = []): string =>
  `table inet miniupnpd {
  chain forward {
    type filter hook forward priority filter;
${lines(forward)}    jump miniupnpd
  }
  chain prerouting {
    type nat hook prerouting priority dstnat;
    jump prerouting_miniupnpd
  }
  chain postrouting {
    type nat hook postrouting priority srcnat;
    jump postrouting_miniupnpd
${lines(postrouting)}  }
  chain miniupnpd {
  }
  chain prerouting_miniupnpd {
  }
  chain postrouting_miniupnpd {
  }
}
`
const lines = (rules: readonly string[]): string => rules.map((rule) => `    ${rule}\n`).join('')

const configuration = ({ lan, wan, external, lifetimeSeconds = 86_400 }: MiniupnpdOptions): string =>
  [
    `ext_ifname=${wan}`,
    ...(external === undefined ? [] : [`ext_ip=${external}`]),
    `listening_ip=${lan}`,
    'enable_natpmp=yes',
    'enable_upnp=no',
    'min_lifetime=1',
    `max_lifetime=${lifetimeSeconds}`,
    'upnp_table_name=miniupnpd',
    'upnp_nat_table_name=miniupnpd',
    'uuid=00000000-0000-4000-8000-000000000001',
    'allow 1024-65535 0.0.0.0/0 1024-65535',
    'deny 0-65535 0.0.0.0/0 0-65535',
    '',
  ].join('\n')

/** Resolves when it listens. @param start runs a program on the router. @throws Error with what it said instead. */
export async function startMiniupnpd(
  start: (command: readonly string[]) => ChildProcess,
  options: MiniupnpdOptions,
): Promise<{ readonly kill: () => Promise<void> }> {
  const folder = mkdtempSync(join(tmpdir(), 'fulmar-miniupnpd-'))
  writeFileSync(join(folder, 'conf'), configuration(options))
  const files = ['-f', join(folder, 'conf'), '-P', join(folder, 'pid')]
  const child = start([find('miniupnpd')!, '-d', ...files])
  const ended = once(child, 'exit')
  const said: string[] = []
  const listens = Promise.withResolvers<void>()
  createInterface(child.stderr!).on('line', (line) => {
    said.push(line)
    if (line.includes('Listening for NAT-PMP/PCP')) listens.resolve()
  })
  void ended.then(() => listens.reject(new Error(`miniupnpd ended:\n${said.join('\n')}`)))
  const kill = async (): Promise<void> => {
    child.kill('SIGKILL')
    await ended
    rmSync(folder, { recursive: true, force: true })
  }
  try {
    await listens.promise
  } catch (error) {
    await kill()
    throw error
  }
  return { kill }
}

/** Runs a program on a host of test/lib/netns.ts. */
export const startOn =
  ({ pid }: Host) =>
  (command: readonly string[]): ChildProcess =>
    spawn('nsenter', ['--target', String(pid), '--net', '--mount', ...command], { stdio: ['ignore', 'ignore', 'pipe'] })
