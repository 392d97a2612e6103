// Beside a CNI: its own overlay with its own port and identifier, its marks, its masquerade, and strict reverse-path
// filters, all there before us.

import t from 'tap'
import { addressOf, get, UNLESS_LONG } from './mesh.ts'
import { beside, CALLS, callAll, edges, sh, type Before } from './beside.ts'

t.setTimeout(280_000)

const CLUSTER = '10.244.0.0/16'
const v4 = (podCidrs: readonly string[]) => podCidrs.find((cidr) => !cidr.includes(':'))!
const v6 = (podCidrs: readonly string[]) => podCidrs.find((cidr) => cidr.includes(':'))!
const network = (cidr: string) => cidr.replace(/\/.*/, '')

/** Every filter strict: those of devices that are there, and of those to come. */
export const STRICT = 'for f in /proc/sys/net/ipv4/conf/*/rp_filter; do echo 1 > $f; done'

/** A CNI's own overlay between the nodes of one pool, as flannel has it between all nodes that it can reach. */
const overlay =
  (device: string, id: number, port: number, flags: string): Before =>
  (node, lab) => {
    const mac = (index: number) => `0a:00:00:00:00:${index.toString(16).padStart(2, '0')}`
    const all = lab.topology.nodes
    const others = all.filter(({ name, pool }) => pool === node.pool && name !== node.name)
    return [
      `ip link add ${device} address ${mac(all.indexOf(node))} type vxlan id ${id} dev eth0 dstport ${port} nolearning`,
      `ip link set ${device} mtu 1450 up`,
      `ip addr add ${network(v4(node.podCidrs))}/32 dev ${device}`,
      ...others.flatMap((other) => [
        `bridge fdb add ${mac(all.indexOf(other))} dev ${device} dst ${other.addresses[0]}`,
        `ip neigh add ${network(v4(other.podCidrs))} lladdr ${mac(all.indexOf(other))} dev ${device} nud permanent`,
        `ip route add ${v4(other.podCidrs)} via ${network(v4(other.podCidrs))} dev ${device} onlink ${flags}`,
      ]),
    ].join('\n')
  }

const FLANNEL: Before = (node, lab) => `${overlay('flannel.1', 1, 8472, '')(node, lab)}
nft -f - <<'NFT'
table ip nat {
  chain FLANNEL-POSTRTG {
    meta mark & 0x4000 == 0x4000 return
    ip saddr ${v4(node.podCidrs)} ip daddr ${CLUSTER} return
    ip saddr ${CLUSTER} ip daddr ${v4(node.podCidrs)} return
    ip saddr != ${CLUSTER} ip daddr ${v4(node.podCidrs)} return
    ip saddr ${CLUSTER} ip daddr != 224.0.0.0/4 masquerade fully-random
    ip saddr != ${CLUSTER} ip daddr ${CLUSTER} masquerade fully-random
  }
  chain POSTROUTING { type nat hook postrouting priority srcnat; policy accept;
    jump FLANNEL-POSTRTG
  }
}
table ip filter {
  chain FLANNEL-FWD {
    ip saddr ${CLUSTER} accept
    ip daddr ${CLUSTER} accept
  }
  chain FORWARD { type filter hook forward priority filter; policy accept;
    jump FLANNEL-FWD
  }
}
NFT
${STRICT}`

const CALICO: Before = (node, lab) => `${overlay('vxlan.calico', 4096, 4789, 'proto 80')(node, lab)}
ip route add blackhole ${v4(node.podCidrs)} proto 80
nft -f - <<'NFT'
table ip raw {
  chain PREROUTING { type filter hook prerouting priority raw; policy accept;
    meta mark set meta mark & 0xfff0ffff
    iifname "fmp*" meta mark set meta mark | 0x00040000
    meta mark & 0x00040000 == 0x00040000 fib saddr . mark . iif oif 0 drop
    meta mark & 0x00010000 == 0x00010000 accept
  }
}
table ip mangle {
  chain PREROUTING { type filter hook prerouting priority mangle; policy accept;
    ct state established,related meta mark set meta mark | 0x00010000
    meta mark & 0x00010000 == 0x00010000 accept
  }
}
table ip filter {
  chain FORWARD { type filter hook forward priority filter; policy accept;
    ct state invalid drop
    meta mark set meta mark & 0xfff1ffff
    meta mark set meta mark | 0x00010000
    meta mark & 0x00010000 == 0x00010000 accept
  }
}
table ip nat {
  chain POSTROUTING { type nat hook postrouting priority srcnat; policy accept;
    ip saddr ${v4(node.podCidrs)} ip daddr != { ${lab.topology.nodes
      .filter(({ pool }) => pool === node.pool)
      .map(({ podCidrs }) => v4(podCidrs))
      .join(', ')} } masquerade
  }
}
NFT
${STRICT}`

const MASQUERADE: Before = ({ podCidrs }) => `nft -f - <<'NFT'
table inet ipmasq {
  chain postrouting { type nat hook postrouting priority srcnat; policy accept;
    ip saddr ${v4(podCidrs)} ip daddr != ${v4(podCidrs)} masquerade
    ip6 saddr ${v6(podCidrs)} ip6 daddr != ${v6(podCidrs)} masquerade
    ip saddr != ${v4(podCidrs)} ip daddr ${v4(podCidrs)} masquerade
    ip6 saddr != ${v6(podCidrs)} ip6 daddr ${v6(podCidrs)} masquerade
  }
}
NFT`

for (const [name, before, device] of [
  ['flannel', FLANNEL, 'flannel.1'],
  ['Calico', CALICO, 'vxlan.calico'],
  ['a masquerade of all that leaves the podCIDR', MASQUERADE, undefined],
] as const)
  t.test(name, { skip: before !== FLANNEL && UNLESS_LONG }, (t) =>
    beside(t, name.slice(0, 2).toLowerCase().replace(' ', 'x'), before, async (lab) => {
      await callAll(t, lab)
      if (device === undefined) return
      for (const [from, to] of [
        ['bay2', 'bay1'],
        ['bay1', 'bay2'],
        ['cape2', 'cape1'],
      ] as const) {
        const address = addressOf(lab, `${to}-shop`, 4)
        t.match(await sh(lab, from, `ip route get ${address}`), `dev ${device}`, `${from} → ${to}: by the CNI's device`)
        const answers = await get(lab, `${from}-client`, Array<string>(CALLS).fill(`http://${address}:8080/`), 4)
        t.equal(answers.length, CALLS, `${from} → ${to}: the pool's own calls go on`)
      }
      for (const { name } of edges(lab)) t.match(await sh(lab, name, `ip link show ${device}`), 'UP')
    }),
  )
