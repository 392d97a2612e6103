// `fulmar cleanup`: takes back all that Fulmar put on this machine, and nothing else: what is ours is known by the names
// and numbers of lib/owned. One line for each thing removed; a second run finds nothing.

import { access, readdir, rm, rmdir } from 'node:fs/promises'
import { join } from 'node:path'
import { removePins } from '../lib/bpf/pins.ts'
import { bpfDirOption, numbersOf, numbersOptions, runDirOption, stateDirOption } from '../lib/common-options.ts'
import { flag, type Options } from '../lib/config.ts'
import { removeGroupOutside } from '../lib/net/cgroup.ts'
import { ExecError, run } from '../lib/net/exec.ts'
import { UsageError } from '../lib/net/lifetime.ts'
import { Netlink } from '../lib/net/netlink.ts'
import { readOptions } from '../lib/net/options.ts'
import { find } from '../lib/net/preflight.ts'
import { removeOwned } from '../lib/net/remove-owned.ts'
import { DAEMONS, fetchAll } from '../lib/net/status-client.ts'
import {
  CACHE_DIR,
  CARRIERS,
  DNS_ADDRESSES,
  NFT_TABLE_AGENT,
  NFT_TABLE_DNS,
  NFT_TABLE_GATEWAY,
  NFT_TABLE_RELAY,
  NFT_TABLE_ROUTES,
  NFT_TABLE_WATCH,
} from '../lib/owned.ts'

const OPTIONS = {
  state: {
    name: 'state',
    doc: 'also remove keys, certificate and what is known of the cluster: this node must join anew',
    fallback: 'false',
    parse: flag,
  },
  force: { name: 'force', doc: 'although daemons still run', fallback: 'false', parse: flag },
  ...numbersOptions,
  bpfDir: bpfDirOption,
  runDir: runDirOption('where the daemons’ sockets are'),
  stateDir: stateDirOption('what --state removes'),
} satisfies Options

const NFT_TABLES: readonly { readonly family: string; readonly name: string }[] = [
  { family: 'ip', name: NFT_TABLE_AGENT },
  { family: 'ip6', name: NFT_TABLE_AGENT },
  { family: 'ip', name: NFT_TABLE_DNS },
  { family: 'ip6', name: NFT_TABLE_DNS },
  { family: 'inet', name: NFT_TABLE_ROUTES },
  { family: 'inet', name: NFT_TABLE_WATCH },
  { family: 'inet', name: NFT_TABLE_GATEWAY },
  { family: 'inet', name: NFT_TABLE_RELAY },
]
/** Where wireguard-go and `wg` meet. */
const WIREGUARD_SOCKETS = '/run/wireguard'
const SOCKETS_OF_DEVICES = Object.values(CARRIERS).map((device) => join(WIREGUARD_SOCKETS, `${device}.sock`))
const SOCKETS = DAEMONS.map((daemon) => `${daemon}.sock`)
/** What daemons and `fulmar join` keep in a state directory; anything else there is somebody else's. */
const STATE_ENTRIES = [
  'identity',
  'node.json',
  'agent',
  'gateway',
  'issuer',
  'announcements',
  'udp-sessions.json',
  'kubernetes.db',
  'kubernetes.db-wal',
  'kubernetes.db-shm',
]

/** Told of each thing as it goes, so that nothing is left untold when a later one fails. */
type Told = (removed: string) => void
type Step = { readonly name: string; readonly remove: (told: Told) => Promise<void> }

/** @returns 0, or 1 if something could not be removed. */
export async function main(argv: readonly string[], env: NodeJS.ProcessEnv): Promise<number> {
  const values = readOptions('fulmar cleanup [--state] [--force]', OPTIONS, argv, env)
  if (typeof values === 'number') return values
  const { state, force, runDir, stateDir, bpfDir } = values
  if (process.geteuid!() !== 0)
    throw new UsageError('removes rules, routes and devices, which needs root; run it through sudo')
  if (!force) await refuseWhileRunning(runDir)
  if (state)
    process.stderr.write(
      `fulmar cleanup: --state removes the keys and the identity in ${stateDir}; this node must join anew\n`,
    )

  const steps: readonly Step[] = [
    { name: 'nft tables', remove: removeTables },
    { name: 'rules, routes and devices', remove: async (told) => (await removeOwned(numbersOf(values))).forEach(told) },
    { name: WIREGUARD_SOCKETS, remove: removeSockets },
    { name: 'control group', remove: removeGroup },
    { name: 'DNS addresses', remove: removeDnsAddresses },
    { name: 'BPF', remove: async (told) => removePins(bpfDir).forEach((name) => told(`BPF ${bpfDir}/${name}`)) },
    { name: runDir, remove: (told) => removeEntries(told, runDir, SOCKETS) },
    { name: stateDir, remove: async (told) => (state ? removeEntries(told, stateDir, STATE_ENTRIES) : undefined) },
    { name: CACHE_DIR, remove: async (told) => (state ? removeCache(told) : undefined) },
  ]
  let count = 0
  let failed = false
  const told: Told = (line) => {
    count++
    process.stdout.write(`removed ${line}\n`)
  }
  for (const { name, remove } of steps) {
    try {
      await remove(told)
    } catch (error) {
      failed = true
      process.stderr.write(`fulmar cleanup: ${name}: ${(error as Error).message}\n`)
    }
  }
  if (count === 0 && !failed) process.stdout.write('nothing of Fulmar’s is on this machine\n')
  return failed ? 1 : 0
}

/** A daemon that lives would put back what goes. */
async function refuseWhileRunning(runDir: string): Promise<void> {
  const answers = await fetchAll(runDir)
  const alive = answers.filter(
    (answer) => answer.kind === 'status' || (answer.kind === 'dead' && answer.code !== 'ECONNREFUSED'),
  )
  if (alive.length === 0) return
  const names = alive.map(({ daemon }) => `fulmar ${daemon}`).join(' and ')
  const [answer, it] = alive.length === 1 ? ['answers', 'it'] : ['answer', 'them']
  throw new UsageError(`${names} still ${answer} in ${runDir}; stop ${it} first, or use --force`)
}

async function removeTables(told: Told): Promise<void> {
  if (find('nft') === undefined) return
  const listed = JSON.parse(await run('nft', ['-j', 'list', 'tables'])) as {
    nftables: readonly { table?: { family: string; name: string } }[]
  }
  const kept: string[] = []
  for (const { table } of listed.nftables) {
    const own = NFT_TABLES.find(({ family, name }) => family === table?.family && name === table.name)
    if (own === undefined) continue
    const { family, name } = own
    try {
      await run('nft', ['delete', 'table', family, name])
      told(`nft table ${family} ${name}`)
    } catch (error) {
      if (!(error instanceof ExecError && error.stderr.includes('Operation not permitted'))) throw error
      kept.push(`${family} ${name}`)
    }
  }
  if (kept.length > 0) throw new Error(`${kept.join(' and ')}: held by an agent that runs; stop it first`)
}

/** A wireguard-go that was killed leaves its socket. The folder is made anew by whoever needs it. */
async function removeSockets(told: Told): Promise<void> {
  for (const path of SOCKETS_OF_DEVICES) await rm(path, { force: true })
  if ((await exists(WIREGUARD_SOCKETS)) && (await readdir(WIREGUARD_SOCKETS)).length === 0)
    await removeFolder(told, WIREGUARD_SOCKETS)
}

async function removeGroup(told: Told): Promise<void> {
  const group = await removeGroupOutside()
  if (group === undefined) return
  const { folder, processes } = group
  if (processes.length === 0) told(`control group ${folder}`)
  else
    process.stderr.write(
      `fulmar cleanup: control group ${folder} stays, since processes in it (${processes.join(', ')}) serve devices of other networks of this machine\n`,
    )
}

async function removeDnsAddresses(told: Told): Promise<void> {
  const netlink = new Netlink()
  try {
    const lo = (await netlink.links()).find(({ name }) => name === 'lo')
    for (const address of await netlink.addresses()) {
      if (address.device !== lo?.index || !DNS_ADDRESSES.includes(address.address)) continue
      await netlink.removeAddress(address)
      told(`address ${address.address} on lo`)
    }
  } finally {
    netlink.close()
  }
}

/** Removes what is ours in a folder, and the folder if it is empty then; a folder may be given by hand and hold more. */
async function removeEntries(told: Told, folder: string, entries: readonly string[]): Promise<void> {
  for (const path of entries.map((entry) => join(folder, entry))) {
    if (!(await exists(path))) continue
    await rm(path, { recursive: true })
    told(path)
  }
  if (!(await exists(folder))) return
  const rest = await readdir(folder)
  if (rest.length > 0) throw new Error(`keeps ${rest.join(', ')}, which Fulmar does not know`)
  await removeFolder(told, folder)
}

async function removeFolder(told: Told, folder: string): Promise<void> {
  try {
    await rmdir(folder)
    told(folder)
  } catch (error) {
    // A mount point, as in a container: what was in it is gone.
    if ((error as NodeJS.ErrnoException).code !== 'EBUSY') throw error
  }
}

/** Made anew by the next daemon that starts. */
async function removeCache(told: Told): Promise<void> {
  if (!(await exists(CACHE_DIR))) return
  await rm(CACHE_DIR, { recursive: true })
  told(CACHE_DIR)
}

const exists = (path: string): Promise<boolean> =>
  access(path).then(
    () => true,
    () => false,
  )
