// Which pods of this node the socket load balancer leaves to nft: those that say so, and those whose connections a sidecar
// takes, since its rules match the ClusterIP, which must not be gone before they see it.

import type { Pod } from '../lib/k8s/objects.ts'

const ANNOTATION = 'fulmar.dev/service-path'
/** Istio, Linkerd, Kuma, Consul: containers that a mesh adds to a pod. */
const SIDECARS: ReadonlySet<string> = new Set(['istio-proxy', 'linkerd-proxy', 'kuma-sidecar', 'consul-dataplane'])
/** Istio without sidecars redirects inside the pod's own network, too. */
const AMBIENT = { annotation: 'ambient.istio.io/redirection', value: 'enabled' }
/** Of static pods: the kubelet names their group by it, and not by the uid that the API gave them. */
const CONFIG_HASH = 'kubernetes.io/config.hash'

/** @returns what the kubelet names the pod's group by, where BPF leaves the pod alone. */
export function leftAlone({ metadata, spec, status }: Pod): string | undefined {
  const { uid, annotations = {} } = metadata ?? {}
  const wish = annotations[ANNOTATION]
  const containers = [...(spec?.containers ?? []), ...(spec?.initContainers ?? [])]
  const intercepted =
    containers.some(({ name }) => SIDECARS.has(name)) || annotations[AMBIENT.annotation] === AMBIENT.value
  const over = status?.phase === 'Succeeded' || status?.phase === 'Failed'
  // What shares the node's network has no sidecar's rules.
  if (over || wish === 'bpf' || (wish !== 'nft' && (!intercepted || spec?.hostNetwork === true))) return undefined
  return annotations[CONFIG_HASH] ?? uid
}

/** A folder of cgroup2 on the way to those of pods: `kubepods.slice`, `kubelet`, `burstable`, … */
export const leadsToPods = (folder: string): boolean => /kubelet|kubepods|^(burstable|besteffort)$/.test(folder)

/** `kubepods-burstable-podUID.slice`, with `_` for `-`, or `podUID`, by the kubelet's cgroup driver. @returns the UID. */
export function podOf(folder: string): string | undefined {
  const [, uid] =
    /(?:^|-)pod([0-9a-f]{32}|[0-9a-f]{8}(?:[-_][0-9a-f]{4}){3}[-_][0-9a-f]{12})(?:\.slice)?$/.exec(folder) ?? []
  return uid?.replaceAll('_', '-')
}
