// Every name that a lab gives to something of the machine. All carry the lab's id, so that labs run side by side and one
// can be taken down after any death by its names alone.

import { createHash } from 'node:crypto'

/** No dash in an id: `fm-a-b-c` would be host `b-c` of lab `a` and host `c` of lab `a-b`. */
const ID = /^[a-z][a-z0-9]{0,11}$/
/** A DNS label (RFC 1123); hosts of a pool get a suffix, so it may not use all 63 characters. */
const POOL = /^[a-z0-9]([a-z0-9-]{0,46}[a-z0-9])?$/
/** What a shell and `ip` take as it is; a file name has 255 characters, of which `fm-ID-` takes up to 16. */
const HOST = /^[A-Za-z0-9][A-Za-z0-9._-]{0,199}$/
const LABS_DIR = '/run/fulmar-lab'

export const CORE = 'core'
export const CLOUD = 'cloud'

/** @throws Error for what cannot be the id of a lab. */
export function parseId(text: string): string {
  if (!ID.test(text))
    throw new Error('is no lab id: up to 12 lower-case letters and digits, a letter first, such as lab or lab2')
  return text
}

/** @throws Error for what cannot be the name of a pool. */
export function parsePoolName(text: string): string {
  if (!POOL.test(text))
    throw new Error(
      `${JSON.stringify(text)} is no pool name: lower-case letters, digits and dashes, up to 48, such as north or shop-2`,
    )
  if (text === CLOUD) throw new Error(`${CLOUD} is always there: leave it out`)
  return text
}

export const routerOf = (pool: string) => `${pool}-nat`
/** The relays of a lab, the first on the cloud's own machine. */
export const relaysOf = (count: number): readonly string[] =>
  Array.from({ length: count }, (_, index) => (index === 0 ? CLOUD : `relay${index + 1}`))
/** The second NAT, of those sites that are behind two. */
export const carrierOf = (pool: string) => `${pool}-carrier`
export const nodeOf = (pool: string, index: number) => `${pool}${index}`
/** `NODE-POD`; a pod whose name begins with its node's, as a DaemonSet's might, keeps its name. */
export const podHostOf = (node: string, pod: string) => (pod.startsWith(`${node}-`) ? pod : `${node}-${pod}`)
/** Names come from objects that anybody may have written. */
export const fitsHost = (host: string) => HOST.test(host)

export const namespacePrefix = (id: string) => `fm-${id}-`
export const namespaceOf = (id: string, host: string) => namespacePrefix(id) + host
/** Below the root of cgroup2; holds a group per host. */
export const cgroupOf = (id: string) => `fm-${id}`

/** A link name has 15 characters, host names have more: the rest is a hash. */
export function linkOf(kind: 'site' | 'port' | 'pod', id: string, host: string): string {
  return `fm${kind[0]}${createHash('sha256').update(`${id} ${kind} ${host}`).digest('hex').slice(0, 12)}`
}

/** Names that stand more than once, each once. */
export function repeated(names: readonly string[]): readonly string[] {
  const seen = new Set<string>()
  return [...new Set(names.filter((name) => seen.has(name) || !seen.add(name)))]
}

/** Where a lab keeps its files; all of it is one tmpfs, so that unmounting it leaves nothing. */
export function pathsOf(id: string) {
  const directory = `${LABS_DIR}/${id}`
  const host = (name: string) => `${directory}/hosts/${name}`
  return {
    directory,
    /** Beside the folder, as it must outlive its unmounting: who runs this lab. */
    lock: `${LABS_DIR}/${id}.lock`,
    log: `${LABS_DIR}/${id}.log`,
    lab: `${directory}/lab.json`,
    events: `${directory}/events.jsonl`,
    programs: `${directory}/bin`,
    manifests: `${directory}/manifests`,
    /** Of the API that the chart is installed on. */
    kubernetes: `${directory}/kubernetes`,
    host,
    runDir: (name: string) => `${host(name)}/run`,
    stateDir: (name: string) => `${host(name)}/state`,
    resolvConf: (name: string) => `${host(name)}/resolv.conf`,
    logOf: (name: string, daemon: string) => `${host(name)}/${daemon}.log`,
    pidOf: (name: string, daemon: string) => `${host(name)}/${daemon}.pid`,
    mountNamespace: (name: string) => `${directory}/mnt/${name}`,
    networkNamespace: (name: string) => `/run/netns/${namespaceOf(id, name)}`,
  }
}
export { LABS_DIR }
