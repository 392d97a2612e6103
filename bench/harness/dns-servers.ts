// DNS servers to compare, each a process on 127.0.0.1 that answers for the same names: ours, dnsmasq and unbound of Debian,
// and CoreDNS, which is built where Go is.

import { spawn, spawnSync, type ChildProcess } from 'node:child_process'
import { once } from 'node:events'
import { existsSync, mkdirSync, writeFileSync } from 'node:fs'
import { homedir } from 'node:os'
import { join } from 'node:path'
import { find } from '../../lib/net/preflight.ts'
import { hostsFile, localData, zoneFile } from './dns-names.ts'

export type DnsServerName = 'fulmar' | 'coredns' | 'dnsmasq' | 'unbound'
export type DnsProcess = { readonly name: DnsServerName; readonly port: number; readonly pid: number }
export type StartedServers = {
  readonly servers: readonly DnsProcess[]
  /** Why a server is left out. */
  readonly notes: readonly string[]
  readonly close: () => Promise<void>
}

const COREDNS = 'github.com/coredns/coredns@v1.12.4'
const BUILD_TIMEOUT_MS = 1_200_000
const SUBJECT = `${import.meta.dirname}/dns-subject.ts`

/** @param folder for the servers' files. @param progress for people, a line at a time. */
export function startDnsServers(
  folder: string,
  ports: readonly number[],
  progress: (line: string) => void,
): StartedServers {
  const notes: string[] = []
  const children: ChildProcess[] = []
  const file = (name: string, text: string): string => {
    writeFileSync(join(folder, name), text)
    return join(folder, name)
  }
  const [own, coredns, dnsmasq, unbound] = ports as [number, number, number, number]
  const commands: readonly (readonly [DnsServerName, number, readonly string[] | undefined])[] = [
    ['fulmar', own, [process.execPath, SUBJECT, String(own)]],
    ['coredns', coredns, corednsCommand(coredns, file, progress)],
    [
      'dnsmasq',
      dnsmasq,
      installed('dnsmasq', [
        ...'--keep-in-foreground --conf-file=/dev/null --no-resolv --no-hosts --bind-interfaces --user=root'.split(' '),
        ...`--listen-address=127.0.0.1 --port=${dnsmasq} --local=/cluster.local/ --local-ttl=5`.split(' '),
        ...[
          `--addn-hosts=${file('hosts', hostsFile())}`,
          `--pid-file=${join(folder, 'dnsmasq.pid')}`,
          '--log-facility=-',
        ],
      ]),
    ],
    ['unbound', unbound, installed('unbound', ['-d', '-c', file('unbound.conf', unboundConf(unbound, folder))])],
  ]
  const servers: DnsProcess[] = []
  for (const [name, port, command] of commands) {
    if (command === undefined) {
      notes.push(`${name} is left out: ${name === 'coredns' ? 'it could not be built' : 'it is not installed'}`)
      continue
    }
    // It ends with the bench, however that ends.
    const child = spawn('setpriv', ['--pdeathsig', 'KILL', ...command], { stdio: ['ignore', 'ignore', 2] })
    children.push(child)
    servers.push({ name, port, pid: child.pid! })
  }
  return {
    servers,
    notes,
    close: async () => {
      for (const child of children) {
        if (child.exitCode !== null || child.signalCode !== null) continue
        const ended = once(child, 'exit')
        child.kill('SIGKILL')
        await ended
      }
    },
  }
}

const installed = (program: string, words: readonly string[]): readonly string[] | undefined => {
  const path = find(program)
  return path === undefined ? undefined : [path, ...words]
}

/** From PATH, from an earlier run, or built now. */
function corednsCommand(
  port: number,
  file: (name: string, text: string) => string,
  progress: (line: string) => void,
): readonly string[] | undefined {
  const folder = join(process.env['XDG_CACHE_HOME'] ?? join(homedir(), '.cache'), 'fulmar', 'bin')
  const built = join(folder, 'coredns')
  if (find('coredns') === undefined && !existsSync(built) && find('go') !== undefined) {
    progress(`building CoreDNS (go install ${COREDNS}), which takes minutes the first time`)
    mkdirSync(folder, { recursive: true })
    spawnSync('go', ['install', COREDNS], {
      stdio: ['ignore', 2, 2],
      env: { ...process.env, GOBIN: folder },
      timeout: BUILD_TIMEOUT_MS,
    })
  }
  const program = find('coredns') ?? (existsSync(built) ? built : undefined)
  const corefile = `.:${port} {\n  bind 127.0.0.1\n  file ${file('zone', zoneFile())} cluster.local\n}\n`
  return program === undefined ? undefined : [program, '-conf', file('Corefile', corefile)]
}

const unboundConf = (port: number, folder: string): string => `server:
  interface: 127.0.0.1
  port: ${port}
  do-daemonize: no
  chroot: ""
  username: ""
  directory: "${folder}"
  pidfile: ""
  use-syslog: no
  num-threads: 1
  module-config: "iterator"
${localData()}remote-control:
  control-enable: no
`
