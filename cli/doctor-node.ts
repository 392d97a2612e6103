// What `fulmar doctor` looks at on the node itself: the kernel and its settings, BPF, devices, CNI, other proxies.

import { accessSync, constants, readdirSync, readFileSync, statfsSync } from 'node:fs'
import { networkInterfaces, release } from 'node:os'
import { dirname, join } from 'node:path'
import { watchProxies } from '../agent/proxies-loop.ts'
import { machineGroup } from '../lib/bpf/hook-point.ts'
import { createMap } from '../lib/bpf/map.ts'
import {
  filterDiagnosis,
  kernelDiagnosis,
  mtuDiagnosis,
  rulesDiagnosis,
  stateDiagnosis,
  type Diagnosis,
  type OwnAddress,
} from '../lib/doctor.ts'
import { createLog } from '../lib/log.ts'
import { Netlink } from '../lib/net/netlink.ts'
import { hasWireguardModule, probe } from '../lib/net/preflight.ts'
import type { AgentStatus } from '../lib/status.ts'
import { CARRIERS, DEVICES, VXLAN_DEVICES } from '../lib/owned.ts'
import { requirementsOf, type Needer } from '../lib/preflight.ts'

const SYSCTL = '/proc/sys/net/ipv4/conf'
const CNI_FOLDER = '/etc/cni/net.d'
const BPF_FS_MAGIC = 0xcafe4a11
/** linux/if.h. */
const IFF_UP = 1
const OWN_DEVICES: readonly string[] = [...Object.values(CARRIERS), ...Object.values(VXLAN_DEVICES)]

type AgentServices = AgentStatus['services']

/**
 * @param daemons those that this node runs or is to run.
 * @param services what an agent that runs here says of them.
 */
export async function diagnoseNode(
  daemons: readonly Needer[],
  {
    bpfDir,
    rulePreference,
    services,
  }: { readonly bpfDir: string; readonly rulePreference: number; readonly services: AgentServices | undefined },
): Promise<readonly Diagnosis[]> {
  const isNode = daemons.includes('agent')
  return [
    kernelDiagnosis(release()),
    ...(await diagnoseRequirements(daemons)),
    ...(daemons.includes('gateway') ? [diagnoseWireGuard(), diagnoseMtu()] : []),
    ...(isNode
      ? [
          diagnoseBpf(services),
          diagnoseBpfFs(bpfDir),
          diagnoseFilter(),
          await diagnoseRules(rulePreference),
          diagnoseCni(),
          await diagnoseProxies(),
        ]
      : []),
  ]
}

/** Nothing where there is no such folder yet. Root may fill what a file system reserves, so that counts as free. */
export function diagnoseState(folder: string): readonly Diagnosis[] {
  try {
    const { bfree, bsize, files, ffree } = statfsSync(folder)
    // Of those that have no fixed number of files, all are 0.
    return [
      stateDiagnosis(folder, isWritable(folder), { bytes: bfree * bsize, files: files === 0 ? undefined : ffree }),
    ]
  } catch {
    return []
  }
}

/** The kernel answers so for root too where the file system is mounted read-only. */
function isWritable(folder: string): boolean {
  try {
    accessSync(folder, constants.W_OK)
    return true
  } catch {
    return false
  }
}

/** The addresses that this machine has by something else than the mesh. */
export const foreignAddresses = (): readonly OwnAddress[] =>
  Object.entries(networkInterfaces()).flatMap(([device, addresses = []]) =>
    OWN_DEVICES.includes(device)
      ? []
      : addresses.filter(({ internal }) => !internal).map(({ address }) => ({ device, address })),
  )

async function diagnoseRequirements(daemons: readonly Needer[]): Promise<readonly Diagnosis[]> {
  const needed = [...new Set(daemons.flatMap(requirementsOf))]
  return (await probe(needed)).map(({ requirement: { name, why, remedy }, problem }) => ({
    name,
    why,
    verdict: problem === undefined ? 'fine' : 'wrong',
    found: problem ?? 'there',
    ...(problem !== undefined && { remedy }),
  }))
}

function diagnoseWireGuard(): Diagnosis {
  const base = {
    name: 'WireGuard in the kernel',
    why: 'wireguard-go takes more processor time than the module',
  }
  if (hasWireguardModule()) return { ...base, verdict: 'fine', found: 'the module is there' }
  const remedy = 'install the module for this kernel (modprobe wireguard); in the chart until then: wireguardGo.enabled'
  return { ...base, verdict: 'note', found: 'no module is seen from here: wireguard-go is used', remedy }
}

function diagnoseMtu(): Diagnosis {
  const read = (names: readonly string[]) =>
    names.flatMap((name) => {
      const mtu = numberIn(`/sys/class/net/${name}/mtu`)
      return mtu === undefined ? [] : [{ name, mtu }]
    })
  // One that is down was made by wireguard-go, and no gateway has needed it yet.
  const isUp = (name: string): boolean => ((numberIn(`/sys/class/net/${name}/flags`) ?? 0) & IFF_UP) !== 0
  return mtuDiagnosis(read(Object.values(DEVICES).filter(isUp)), read(uplinks()))
}

/** Devices with a default route, by the kernel's tables of IPv4 and IPv6. */
function uplinks(): readonly string[] {
  const rows = (path: string) =>
    textIn(path)
      .split('\n')
      .map((line) => line.trim().split(/\s+/))
  const v4 = rows('/proc/net/route').filter(([, to, , , , , , mask]) => to === '00000000' && mask === '00000000')
  const v6 = rows('/proc/net/ipv6_route').filter(([to, length]) => to === '0'.repeat(32) && length === '00')
  const names = [...v4.map(([name = '']) => name), ...v6.map((row) => row.at(-1) ?? '')]
  return [...new Set(names)].filter((name) => name !== '' && name !== 'lo')
}

/** Nothing where it cannot be read. */
function textIn(path: string): string {
  try {
    return readFileSync(path, 'utf8').trim()
  } catch {
    return ''
  }
}

function numberIn(path: string): number | undefined {
  const text = textIn(path)
  return text === '' ? undefined : Number(text)
}

function diagnoseBpf(services: AgentServices | undefined): Diagnosis {
  const base = {
    name: 'BPF on cgroup2',
    why: 'TCP calls to services are redirected once, at connect(), and not packet by packet',
  }
  if (services?.path === 'bpf') return { ...base, verdict: 'fine', found: 'the agent uses it' }
  if (services?.pathReason !== undefined)
    return { ...base, verdict: 'note', found: `the agent does not use it: ${services.pathReason}`, remedy: BPF_REMEDY }
  try {
    machineGroup()
    const map = createMap('fm_doctor', { type: 'hash', keyBytes: 4, valueBytes: 4, entries: 1 })
    map.close()
    return { ...base, verdict: 'fine', found: 'the machine’s group is seen, and a map can be made' }
  } catch (error) {
    return { ...base, verdict: 'note', found: (error as Error).message, remedy: BPF_REMEDY }
  }
}
const BPF_REMEDY =
  'nothing if that is as you want it: services go by nft. Else use a kernel with cgroup2 and BPF; in a container mount the host’s /sys/fs/cgroup, and run it privileged; or name a group by fulmar agent --cgroup'

function diagnoseBpfFs(bpfDir: string): Diagnosis {
  const folder = dirname(bpfDir)
  const base = { name: 'BPF file system', why: 'what is pinned in it serves connections while the agent starts again' }
  try {
    if (statfsSync(folder).type === BPF_FS_MAGIC) return { ...base, verdict: 'fine', found: folder }
    if (readdirSync(folder).length === 0)
      return { ...base, verdict: 'fine', found: `${folder} is empty: the agent mounts it there` }
    const remedy = 'mount -t bpf bpf /sys/fs/bpf, or name another folder by --bpf-dir'
    return { ...base, verdict: 'note', found: `${folder} is none, and holds other files`, remedy }
  } catch (error) {
    const remedy = 'mount -t bpf bpf /sys/fs/bpf; in a container mount the host’s'
    return { ...base, verdict: 'note', found: (error as Error).message, remedy }
  }
}

function diagnoseFilter(): Diagnosis {
  const read = (name: string) => numberIn(join(SYSCTL, name, 'rp_filter'))
  const own = OWN_DEVICES.flatMap((name) => {
    const filter = read(name)
    return filter === undefined ? [] : [{ name, filter }]
  })
  return filterDiagnosis(read('all') ?? 0, own)
}

async function diagnoseRules(rulePreference: number): Promise<Diagnosis> {
  const netlink = new Netlink()
  try {
    // Those of the way back come right before it.
    return rulesDiagnosis(await netlink.rules(), rulePreference - 1)
  } finally {
    netlink.close()
  }
}

/** The file that sorts first is the one that counts. */
function diagnoseCni(): Diagnosis {
  const base = { name: 'CNI', why: 'pods get their network from it; it leaves other pools’ pods to Fulmar' }
  try {
    const [file] = readdirSync(CNI_FOLDER)
      .filter((name) => /\.(conf|conflist|json)$/.test(name))
      .toSorted()
    if (file === undefined) return { ...base, verdict: 'fine', found: `nothing in ${CNI_FOLDER}` }
    const { name, type, plugins } = JSON.parse(readFileSync(join(CNI_FOLDER, file), 'utf8')) as {
      readonly name?: string
      readonly type?: string
      readonly plugins?: readonly { readonly type?: string }[]
    }
    return { ...base, verdict: 'fine', found: `${type ?? plugins?.[0]?.type ?? 'of no type'} (${name ?? file})` }
  } catch (error) {
    const { code, message } = error as NodeJS.ErrnoException
    if (code === 'ENOENT') return { ...base, verdict: 'fine', found: `none seen from here (no ${CNI_FOLDER})` }
    return { ...base, verdict: 'note', found: message, remedy: `mend or remove the first file in ${CNI_FOLDER}` }
  }
}

async function diagnoseProxies(): Promise<Diagnosis> {
  const base = {
    name: 'other service proxies',
    why: 'Fulmar comes before kube-proxy, which serves where Fulmar is gone',
  }
  const looking = new AbortController()
  try {
    const options = { group: undefined, onChange: () => {}, log: createLog('agent', 'silent') }
    const { names, replacement } = (await watchProxies(options, looking.signal)).here()
    if (replacement === undefined)
      return { ...base, verdict: 'fine', found: names.length === 0 ? 'none' : `${names.join(', ')}; ours comes first` }
    const remedy = 'nothing, or fulmar agent --service-path nft to serve them all the same'
    return { ...base, verdict: 'note', found: `${replacement}: services are left to it`, remedy }
  } catch (error) {
    return { ...base, verdict: 'note', found: (error as Error).message, remedy: 'see the line about nft' }
  } finally {
    looking.abort()
  }
}
