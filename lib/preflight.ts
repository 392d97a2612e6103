// What a host must have: for each thing its name, who needs it and why, and how to get it. A table and the text made
// from what lib/net/preflight.ts found; nothing is probed here.

/**
 * Who needs it: the daemons by name, the lab with its benches and the demo, only tests, which skip without it, the tests
 * on a kernel of their own, or one bench, by its question.
 */
export type Needer = 'agent' | 'gateway' | 'relay' | 'lab' | 'tests' | 'test:kernel' | `bench:${string}`

export type Probe =
  | { readonly kind: 'program'; readonly program: string }
  /** A character device that must open for reading and writing. */
  | { readonly kind: 'device'; readonly path: string }
  | { readonly kind: 'root' }
  | { readonly kind: 'cgroup2' }
  | { readonly kind: 'nftables' }
  | { readonly kind: 'wireguard' }

export type Requirement = {
  readonly name: string
  readonly probe: Probe
  readonly why: string
  readonly needers: readonly Needer[]
  /** The Debian package that brings it. */
  readonly package?: string
  /** What to do where no package helps. */
  readonly remedy: string
}

export type Finding = {
  readonly requirement: Requirement
  /** Why it does not count as there; undefined if it does. */
  readonly problem: string | undefined
}

const program = (name: string, debianPackage: string, why: string, needers: readonly Needer[]): Requirement => ({
  name,
  probe: { kind: 'program', program: name },
  why,
  needers,
  package: debianPackage,
  remedy: `install ${name} (Debian package ${debianPackage}) and see that it is in PATH`,
})

export const REQUIREMENTS: readonly Requirement[] = [
  {
    name: 'root',
    probe: { kind: 'root' },
    why: 'network devices, routes, nft rules and namespaces are set by root only',
    needers: ['agent', 'gateway', 'lab'],
    remedy: 'run as root or through sudo; a container needs --privileged, for CAP_NET_ADMIN and CAP_SYS_ADMIN',
  },
  program('nft', 'nftables', 'loads the rules for services, NAT and the port that WireGuard and STUN share', [
    'agent',
    'gateway',
    'relay',
    'lab',
  ]),
  program('wg', 'wireguard-tools', 'sets keys and peers of the WireGuard devices', ['gateway', 'lab']),
  program('wireguard-go', 'wireguard-go', 'is WireGuard where the kernel has no module, and in the lab', ['lab']),
  program('ip', 'iproute2', 'makes the namespaces and links of the lab', ['lab']),
  program('conntrack', 'conntrack', 'forgets UDP flows to endpoints that are gone', ['agent', 'relay', 'lab']),
  program('setpriv', 'util-linux', 'ends a daemon’s helper programs with the daemon', ['agent', 'gateway', 'relay']),
  program('nsenter', 'util-linux', 'runs a program on a host of the lab', ['lab']),
  program('ping', 'iputils-ping', 'measures paths in the lab', ['lab']),
  program('miniupnpd', 'miniupnpd-nftables', 'is a router that maps ports by PCP and NAT-PMP', ['tests']),
  program('faketime', 'faketime', 'gives daemons another time', ['tests']),
  program('dig', 'bind9-dnsutils', 'asks the DNS as somebody else’s client', ['tests']),
  program('dnsperf', 'dnsperf', 'asks DNS servers as fast as they answer', ['bench:dns']),
  program('dnsmasq', 'dnsmasq-base', 'is a DNS server to compare ours with', ['bench:dns']),
  program('unbound', 'unbound', 'is a DNS server to compare ours with', ['bench:dns']),
  program('haproxy', 'haproxy', 'is a proxy in userspace to compare our services and kubectl’s way with', [
    'bench:service',
    'bench:ops',
    'bench:ops-throughput',
  ]),
  program('nginx', 'libnginx-mod-stream', 'is a proxy in userspace to compare our services with', ['bench:service']),
  program('kubectl', 'kubernetes-client', 'tests the embedded Kubernetes API with the real client', ['lab']),
  program('qemu-system-x86_64', 'qemu-system-x86', 'boots Debian’s kernel (90 MB with all it needs)', ['test:kernel']),
  program('busybox', 'busybox-static', 'is the first program in that kernel', ['test:kernel']),
  program('cpio', 'cpio', 'packs what that kernel starts with', ['test:kernel']),
  program('modprobe', 'kmod', 'loads modules into that kernel', ['test:kernel']),
  {
    name: 'nftables in the kernel',
    probe: { kind: 'nftables' },
    why: 'services and NAT are nft rules',
    needers: ['agent', 'gateway', 'lab'],
    remedy: 'use a kernel of 5.13 or later with nf_tables (modprobe nf_tables)',
  },
  {
    name: 'WireGuard',
    probe: { kind: 'wireguard' },
    why: 'the tunnels between pools are WireGuard, by the kernel’s module or wireguard-go',
    needers: ['gateway', 'lab'],
    package: 'wireguard-go',
    remedy: 'modprobe wireguard, or install wireguard-go',
  },
  {
    name: '/dev/net/tun',
    probe: { kind: 'device', path: '/dev/net/tun' },
    why: 'wireguard-go and the lab’s slow links are TUN devices',
    needers: ['lab'],
    remedy: 'modprobe tun; in a container pass the device in (docker run --device /dev/net/tun)',
  },
  {
    name: 'cgroup2',
    probe: { kind: 'cgroup2' },
    why: 'CPU and memory of each host of the lab are accounted in a cgroup of its own',
    needers: ['lab'],
    remedy: 'mount -t cgroup2 none /sys/fs/cgroup, or any other place',
  },
]

export const requirementsOf = (needer: Needer): readonly Requirement[] =>
  REQUIREMENTS.filter(({ needers }) => needers.includes(needer))

export const missing = (findings: readonly Finding[]): readonly Finding[] =>
  findings.filter(({ problem }) => problem !== undefined)

/** The Debian packages that bring what is missing, each once. */
export const packagesFor = (findings: readonly Finding[]): readonly string[] => [
  ...new Set(missing(findings).flatMap(({ requirement }) => requirement.package ?? [])),
]

/** What is missing, why it is needed and how to get it; three lines each, nothing if all is there. */
export function report(findings: readonly Finding[]): string {
  return missing(findings)
    .map(
      ({ requirement: { name, why, remedy }, problem }) =>
        `  ${name}: ${problem}\n    why: ${why}\n    remedy: ${remedy}\n`,
    )
    .join('')
}

/** What apt-get will bring and why, a line for each package. */
export function announce(findings: readonly Finding[]): string {
  return packagesFor(findings)
    .map((name) => {
      const { requirement } = missing(findings).find((finding) => finding.requirement.package === name)!
      return `  ${name.padEnd(18)} ${requirement.name}: ${requirement.why}\n`
    })
    .join('')
}
