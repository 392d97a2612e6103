// Other proxies by what they leave in the kernel: a row per combination.

import t from 'tap'
import { proxiesOf, type ProxySigns } from '../../agent/proxies.ts'

type Row = readonly [
  name: string,
  signs: Partial<Record<keyof ProxySigns, unknown>>,
  names: readonly string[],
  by?: RegExp,
]
const cilium = { devices: new Set(['lo', 'cilium_host']) }
const kubeProxy = { chains: new Set(['KUBE-SERVICES']) }
const rows: readonly Row[] = [
  ['nobody', {}, []],
  ['a device of another name', { devices: new Set(['lo', 'eth0']) }, []],
  ['kube-proxy, nftables', { tables: new Set(['kube-proxy']) }, ['kube-proxy (nftables)']],
  ['kube-proxy, iptables', kubeProxy, ['kube-proxy (iptables)']],
  ['kube-proxy, ipvs, which has chains too', { ...kubeProxy, devices: new Set(['kube-ipvs0']) }, ['kube-proxy (ipvs)']],
  [
    'kube-proxy that changed its mode and left rules',
    { ...kubeProxy, tables: new Set(['nat', 'kube-proxy']) },
    ['kube-proxy (nftables)', 'kube-proxy (iptables)'],
  ],
  ['EdgeMesh', { chains: new Set(['KUBE-PORTALS-CONTAINER']) }, ['EdgeMesh']],
  ['Cilium as a network only', cilium, []],
  [
    'Cilium, which serves pods beside kube-proxy',
    { ...cilium, ...kubeProxy, ciliumMaps: true },
    ['kube-proxy (iptables)', 'Cilium'],
  ],
  ['Cilium with its maps and no kube-proxy', { ...cilium, ciliumMaps: true }, ['Cilium'], /its maps of services/],
  ['Cilium at connect()', { ...cilium, programs: ['cil_sock4_conne'] }, ['Cilium'], /it runs cil_sock4_conne/],
  ['Cilium before 1.13 at connect()', { ...cilium, programs: ['sock6_connect'] }, ['Cilium'], /it runs sock6_connect/],
  [
    'Cilium at connect(), beside what kube-proxy left',
    { ...cilium, ...kubeProxy, programs: ['cil_sock4_conne'] },
    ['kube-proxy (iptables)', 'Cilium'],
    /it runs/,
  ],
  ['our own programs', { ...cilium, programs: ['fm_connect4', 'other'] }, []],
  ['maps that a Cilium that is gone left', { ciliumMaps: true, programs: ['cil_sock4_conne'] }, []],
]
for (const [name, signs, names, by] of rows) {
  const nothing = { tables: new Set(), chains: new Set(), devices: new Set(), ciliumMaps: false, programs: [] }
  const found = proxiesOf({ ...nothing, ...signs } as ProxySigns)
  t.strictSame(found.names, names, name)
  if (by === undefined) t.equal(found.replacement, undefined, `${name}: replaces nothing`)
  else t.match(found.replacement, by, `${name}: serves alone`)
}
