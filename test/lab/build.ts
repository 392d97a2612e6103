// Makes the hosts of a topology on this machine.

import { chmodSync, mkdirSync, writeFileSync } from 'node:fs'
import { run } from '../../lib/net/exec.ts'
import { makeCgroups } from './machine.ts'
import { pathsOf } from './names.ts'
import { FULMAR } from './paths.ts'
import { hostScript, machineBatch } from './script.ts'
import type { LabHost, Topology } from './topology.ts'

const AT_ONCE = 4

/** The lab's folder, before anything else of it. */
export async function makeFolder(id: string): Promise<void> {
  const { directory, programs } = pathsOf(id)
  mkdirSync(directory, { recursive: true })
  await run('mount', ['-t', 'tmpfs', '-o', 'mode=755', 'fulmar-lab', directory])
  // Namespaces can only be bound onto files of a private mount.
  await run('mount', ['--make-private', directory])
  mkdirSync(programs)
  writeFileSync(`${programs}/fulmar`, `#!/bin/sh\nexec ${process.execPath} ${FULMAR} "$@"\n`)
  chmodSync(`${programs}/fulmar`, 0o755)
  // The one folder that is made on the machine itself: each host's state is mounted over it. It stays, since removing it
  // would unmount the state of other labs.
  mkdirSync('/var/lib/fulmar', { recursive: true })
}

/** Namespaces, links, addresses, routes and rules. */
export async function buildHosts(topology: Topology, signal: AbortSignal): Promise<void> {
  const { id, hosts } = topology
  const paths = pathsOf(id)
  makeCgroups(hosts.map(({ cgroup }) => cgroup))
  mkdirSync(`${paths.directory}/mnt`)
  for (const { name, resolvConf } of hosts) {
    for (const directory of [paths.runDir(name), paths.stateDir(name), `${paths.host(name)}/root`])
      mkdirSync(directory, { recursive: true })
    writeFileSync(paths.resolvConf(name), resolvConf)
    writeFileSync(paths.mountNamespace(name), '')
  }
  await run('ip', ['-batch', '-'], { input: machineBatch(topology) })
  const waiting = [...hosts]
  const worker = async (): Promise<void> => {
    for (let host = waiting.shift(); host !== undefined && !signal.aborted; host = waiting.shift())
      await buildHost(id, host)
  }
  await Promise.all(Array.from({ length: AT_ONCE }, worker))
  signal.throwIfAborted()
}

async function buildHost(id: string, host: LabHost): Promise<void> {
  const paths = pathsOf(id)
  const command = ['unshare', `--mount=${paths.mountNamespace(host.name)}`, '--propagation=private', 'sh', '-e']
  try {
    await run('nsenter', [`--net=${paths.networkNamespace(host.name)}`, '--', ...command], {
      input: hostScript(id, host),
    })
  } catch (cause) {
    throw new Error(`host ${host.name} cannot be made: ${(cause as Error).message}`, { cause })
  }
}
