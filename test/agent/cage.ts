// A node for tests of BPF: the test file is started again with a network, mounts (a BPF file system and names of
// networks among them) and a cgroup2 group of its own, so that programs see nobody else's processes and all ends with the test, however it ends.

import { spawn } from 'node:child_process'
import { existsSync, mkdirSync, rmdirSync, writeFileSync } from 'node:fs'
import { setTimeout as sleep } from 'node:timers/promises'
import { fileURLToPath } from 'node:url'
import { cgroupMount } from '../../lib/bpf/hook-point.ts'

const INSIDE = 'FULMAR_TEST_CAGE'
const SETUP = `
echo 0 > "$1/node/cgroup.procs" && mkdir -p /run/netns && mount -t tmpfs tmpfs /run/netns && mount -t bpf bpf /sys/fs/bpf &&
ip link set lo up && shift && exec "$@"`

export type Cage = {
  /** Folder of its group; the test itself is in `node` below it. */
  readonly group: string
}

/** undefined in the process that only starts the test anew. */
export function enterCage(prefix: string, url: string): Cage | undefined {
  const inside = process.env[INSIDE]
  if (inside !== undefined) return { group: inside }
  const group = `${cgroupMount()}/${prefix}${process.pid}`
  mkdirSync(`${group}/node`, { recursive: true })
  const command = [process.execPath, fileURLToPath(url)]
  const child = spawn('unshare', ['--net', '--mount', 'sh', '-c', SETUP, 'sh', group, ...command], {
    stdio: 'inherit',
    env: { ...process.env, [INSIDE]: group },
  })
  for (const signal of ['SIGINT', 'SIGTERM'] as const) process.on(signal, () => child.kill(signal))
  child.on('exit', (code, signal) => {
    process.exitCode = code ?? (signal === null ? 0 : 1)
    void removeGroup(group)
  })
  return undefined
}

/** A group below, for processes that are to be told from the rest. */
export function addGroup({ group }: Cage, name: string): string {
  mkdirSync(`${group}/${name}`)
  return `${group}/${name}`
}

async function removeGroup(group: string): Promise<void> {
  writeFileSync(`${group}/cgroup.kill`, '1')
  for (let i = 0; existsSync(group) && i < 200; i++) {
    try {
      for (const name of ['node', 'other', '']) if (existsSync(`${group}/${name}`)) rmdirSync(`${group}/${name}`)
    } catch {
      await sleep(10)
    }
  }
}
