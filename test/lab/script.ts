// The text that makes a lab: one batch for `ip` on the machine, and one shell script per host that runs inside its
// network namespace and a fresh mount namespace. Few processes, since their start is what a lab's start costs.

import { namespaceOf, pathsOf } from './names.ts'
import type { LabHost, Topology } from './topology.ts'

/** Namespaces and links; links are born inside their namespaces, so the machine never has them. */
export function machineBatch({ id, hosts, links }: Topology): string {
  const at = (host: string) => namespaceOf(id, host)
  return [
    ...hosts.map(({ name }) => `netns add ${at(name)}`),
    ...links.map(
      ([a, b]) => `link add ${a.device} netns ${at(a.host)} type veth peer name ${b.device} netns ${at(b.host)}`,
    ),
    '',
  ].join('\n')
}

/** Runs as `sh -e` inside the namespaces of a host. */
export function hostScript(id: string, host: LabHost): string {
  return [kernel(host), rules(host), mounts(id, host)].join('')
}

function kernel({ kind, ip }: LabHost): string {
  const forwards = kind === 'pod' ? 0 : 1
  return `for f in /proc/sys/net/ipv6/conf/*/accept_dad; do echo 0 > "$f"; done
for f in /proc/sys/net/bridge/bridge-nf-call-*; do [ ! -e "$f" ] || echo 0 > "$f"; done
echo ${forwards} > /proc/sys/net/ipv4/ip_forward
echo ${forwards} > /proc/sys/net/ipv6/conf/all/forwarding
ip -batch - <<'IP'
${ip.join('\n')}
IP
`
}

const rules = ({ nft }: LabHost) => (nft === '' ? '' : `nft -f - <<'NFT'\n${nft}NFT\n`)

/**
 * A /run of its own keeps wireguard-go's sockets and our own apart. The machine's /run/netns and other labs leave the
 * mount namespace, or it would keep their network namespaces alive after they are deleted; one that is taken down at
 * this moment leaves by itself. /sys is mounted anew, since its net classes are those of the namespace that it was
 * mounted in; cgroup2 goes with it, and a BPF file system, as systemd mounts one on every node.
 */
function mounts(id: string, { name, kind }: LabHost): string {
  const paths = pathsOf(id)
  const root = `${paths.host(name)}/root`
  const node = `mount -n --bind ${paths.runDir(name)} ${root}/fulmar
mount -n --bind ${paths.stateDir(name)} /var/lib/fulmar
mount -n --rbind /sys/fs/cgroup ${root}/cgroup
mount -n -t sysfs sysfs /sys
mount -n --move ${root}/cgroup /sys/fs/cgroup
mount -n -t bpf bpf /sys/fs/bpf 2>/dev/null || :
`
  return `resolv=$(readlink -f /etc/resolv.conf)
mount -n -t tmpfs -o mode=755 fulmar-lab ${root}
mkdir -p ${root}/cgroup ${root}/fulmar ${root}/lock ${root}/fulmar-lab/${id}
mount -n --bind ${paths.directory} ${root}/fulmar-lab/${id}
${kind === 'node' ? node : ''}grep -o ' /run/netns[^ /]*\\| /run/fulmar-lab/[^ /]*' /proc/self/mounts | sort -u | while read -r old; do
  [ "$old" = ${paths.directory} ] || umount -n -l "$old" 2>/dev/null || :
done
mount -n --move ${root} /run
case $resolv in /run/*) mkdir -p "$(dirname "$resolv")" && touch "$resolv" ;; esac
[ ! -e "$resolv" ] || mount -n --bind ${paths.resolvConf(name)} "$resolv"
`
}
