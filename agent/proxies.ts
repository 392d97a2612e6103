// Other service proxies on this node, by what they leave in the kernel. Beside kube-proxy and EdgeMesh ours comes first, and
// theirs serves where ours is gone; Cilium rewrites addresses before ours sees them, so where it replaces kube-proxy,
// services are its own.

/** What is looked for; the values are what was found. */
export type ProxySigns = {
  /** Tables of nftables. */
  readonly tables: ReadonlySet<string>
  /** Chains of iptables' nat table, in nftables or in the kernel's older tables. */
  readonly chains: ReadonlySet<string>
  readonly devices: ReadonlySet<string>
  /** Cilium's maps of services are pinned. */
  readonly ciliumMaps: boolean
  /** Names of programs that run when a process connects. */
  readonly programs: readonly string[]
}
export type OtherProxies = {
  /** For people. */
  readonly names: readonly string[]
  /** Who serves the services of this node in kube-proxy's place, and how that is known. */
  readonly replacement?: string
}

export const KUBE_PROXY_TABLE = 'kube-proxy'
export const KUBE_PROXY_CHAIN = 'KUBE-SERVICES'
export const EDGEMESH_CHAIN = 'KUBE-PORTALS-CONTAINER'
const IPVS_DEVICE = 'kube-ipvs0'
export const CILIUM_DEVICE = 'cilium_host'
/** Of a program's name the kernel keeps 15 characters; older versions have no prefix. */
const CILIUM_PROGRAM = /^(cil_)?sock[46]_conne/

export function proxiesOf({ tables, chains, devices, ciliumMaps, programs }: ProxySigns): OtherProxies {
  // In its mode ipvs kube-proxy has that chain too.
  const ipvs = devices.has(IPVS_DEVICE)
  const modes = [
    ...(tables.has(KUBE_PROXY_TABLE) ? ['nftables'] : []),
    ...(chains.has(KUBE_PROXY_CHAIN) && !ipvs ? ['iptables'] : []),
    ...(ipvs ? ['ipvs'] : []),
  ]
  const cilium = devices.has(CILIUM_DEVICE) && (ciliumMaps || programs.some((name) => CILIUM_PROGRAM.test(name)))
  const replacement = cilium ? replacementOf(programs, modes.length > 0) : undefined
  return {
    names: [
      ...modes.map((mode) => `kube-proxy (${mode})`),
      ...(chains.has(EDGEMESH_CHAIN) ? ['EdgeMesh'] : []),
      ...(cilium ? ['Cilium'] : []),
    ],
    ...(replacement !== undefined && { replacement }),
  }
}

/** Cilium has maps of services beside kube-proxy too: for pods, where it replaces nothing. */
function replacementOf(programs: readonly string[], beside: boolean): string | undefined {
  const program = programs.find((name) => CILIUM_PROGRAM.test(name))
  const how = program === undefined ? 'its maps of services are there and no kube-proxy is' : `it runs ${program}`
  return program === undefined && beside ? undefined : `Cilium replaces kube-proxy on this node (${how})`
}
