// Beside kube-proxy's marks, strict reverse-path filters, a firewall that drops what it is not told to accept, and a VPN
// whose rule comes before ours, all there before us.

import t from 'tap'
import { addressOf, get, UNLESS_LONG } from './mesh.ts'
import { beside, CALLS, callAll, edges, sh, toldBy, untoldBy, type Before } from './beside.ts'

t.setTimeout(280_000)

const KUBE_PROXY: Before = ({ podCidrs }) => `nft -f - <<'NFT'
${(['ip', 'ip6'] as const)
  .map((word) => {
    const cluster = word === 'ip' ? '10.244.0.0/16' : 'fd00:244::/32'
    const services = word === 'ip' ? '10.96.0.0/16' : 'fd00:96::/112'
    const own = podCidrs.find((cidr) => cidr.includes(':') === (word === 'ip6'))
    return `table ${word} nat {
  chain KUBE-MARK-MASQ { meta mark set meta mark | 0x4000 ; }
  chain KUBE-SERVICES { ${word} saddr != ${cluster} ${word} daddr ${services} jump KUBE-MARK-MASQ ; }
  chain KUBE-POSTROUTING {
    meta mark & 0x4000 != 0x4000 return
    meta mark set meta mark ^ 0x4000
    masquerade fully-random
  }
  chain PREROUTING { type nat hook prerouting priority dstnat; policy accept;
    jump KUBE-SERVICES
  }
  chain OUTPUT { type nat hook output priority -100; policy accept;
    jump KUBE-SERVICES
  }
  chain POSTROUTING { type nat hook postrouting priority srcnat; policy accept;
    jump KUBE-POSTROUTING
  }
}
table ${word} filter {
  chain KUBE-FIREWALL { meta mark & 0x8000 == 0x8000 drop ; }
  chain KUBE-FORWARD {
    ct state invalid drop
    meta mark & 0x4000 == 0x4000 accept
    ${word} saddr ${own} accept
    ct state related,established accept
  }
  chain FORWARD { type filter hook forward priority filter; policy accept;
    jump KUBE-FORWARD
  }
  chain INPUT { type filter hook input priority filter; policy accept;
    jump KUBE-FIREWALL
  }
}`
  })
  .join('\n')}
NFT`

const STRICT: Before = () => 'for f in /proc/sys/net/ipv4/conf/*/rp_filter; do echo 1 > $f; done'

t.test("kube-proxy's marks", { skip: UNLESS_LONG }, (t) => beside(t, 'kp', KUBE_PROXY))
// Beside CNIs they are strict too.
t.test('strict reverse-path filters everywhere', { skip: UNLESS_LONG }, (t) => beside(t, 'rp', STRICT))

/** As Docker leaves it on a node: what DOCKER-USER does not accept, the policy drops. */
const DOCKER: Before = () => `nft -f - <<'NFT'
table ip filter {
  chain DOCKER-USER { return ; }
  chain FORWARD { type filter hook forward priority filter; policy drop;
    jump DOCKER-USER
  }
}
NFT`
const DROPS = /^forward rules of somebody else drop/

t.test('a forward policy that drops: it is told with its remedy, which works', (t) =>
  beside(t, 'fw', DOCKER, async (lab) => {
    const call = (from: string, to: string) =>
      lab.exec(from, ['curl', '-s', '--max-time', '1', `http://${addressOf(lab, to, 4)}:8080/`])
    t.not((await call('bay2-client', 'cape2-shop')).code, 0, 'no call comes through')
    const ending = new AbortController()
    const calls = (async () => {
      while (!ending.signal.aborted)
        await Promise.all([call('bay2-client', 'cape2-shop'), call('cape2-client', 'bay2-shop')])
    })()
    // From the callers on: what one node drops no other sees, so each tells when those before it have been mended.
    for (const name of ['bay2', 'cape2', 'bay1', 'cape1']) {
      const told = await toldBy(lab, name, DROPS)
      t.match(told, 'chain FORWARD of ip filter (policy drop); accept it there: nft insert rule ip filter DOCKER-USER')
      for (const command of told.replace(/^.*accept it there: /, '').split('; ')) await sh(lab, name, command)
    }
    ending.abort()
    await calls
    await callAll(t, lab)
    for (const { name } of edges(lab)) {
      await untoldBy(lab, name, DROPS)
      await sh(lab, name, 'nft flush chain ip filter DOCKER-USER; nft add rule ip filter DOCKER-USER return')
    }
  }),
)

const VPN: Before = () => `ip link add vpn0 type veth peer name vpn1
ip addr add 100.64.0.1/32 dev vpn0
ip link set vpn0 up
ip link set vpn1 up
ip route add 100.64.0.0/10 dev vpn0 table 100
ip rule add pref 100 lookup 100`
const TAKEN =
  /^packets for 10\.244\.\d+\.0\/24 of pool \w+ and \d+ more leave by routing table 100: rule 100 comes before ours/

t.test("a VPN's rule before ours: told where it takes what is ours", { skip: UNLESS_LONG }, (t) =>
  beside(t, 'vp', VPN, async (lab) => {
    await callAll(t, lab)
    await sh(lab, 'bay2', 'ip route add 10.244.0.0/16 dev vpn0 table 100')
    t.match(await toldBy(lab, 'bay2', TAKEN), /give it a preference over 5101/)
    await sh(lab, 'bay2', 'ip route del 10.244.0.0/16 table 100')
    await untoldBy(lab, 'bay2', TAKEN)
    const answers = await get(
      lab,
      'bay2-client',
      Array<string>(CALLS).fill(`http://${addressOf(lab, 'cape2-shop', 4)}:8080/`),
      4,
    )
    t.equal(answers.length, CALLS)
  }),
)
