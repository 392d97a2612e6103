import t from 'tap'
import { gatewayTable, isComplete } from '../../gateway/port-sharing.ts'

const STUN = '@th,64,8 < 2 @th,64,16 != 0x0100 @th,96,32 0x2112a442'
const GOLDEN = `add table inet fulmar-gateway
delete table inet fulmar-gateway
table inet fulmar-gateway {
  chain probes-out {
    type filter hook output priority -310; policy accept;
    udp sport 51 udp sport set 50
    udp sport 61 udp sport set 60
  }
  chain probes-in {
    type filter hook input priority 10; policy accept;
    udp dport 70 iifname != "lo" drop
    udp dport 50 ${STUN} udp dport set 51
    udp dport 60 ${STUN} udp dport set 61
  }
  chain clamp {
    type filter hook forward priority -150; policy accept;
    tcp flags syn / syn,rst oifname { "fm-direct", "fm-udp", "fm-tcp", "fm-leave" } tcp option maxseg size set rt mtu
  }
}
`
const ports = { wireguardPort: 50, probePort: 51, loopbackPort: 70 }
t.equal(gatewayTable({ ...ports, further: [{ wireguardPort: 60, probePort: 61 }] }), GOLDEN)
t.ok(isComplete(gatewayTable(ports)))
t.notOk(isComplete(gatewayTable(ports).replace(/udp sport set/, '')))
