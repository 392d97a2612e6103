// A container of a pod on the node's network, as a container runtime would start it: the image as its root, of the node
// what the pod mounts and nothing else, the environment of the pod, and no more capabilities than it may have. A pure
// translation of a pod's manifest to a shell script that ends as the container's program.

/** The part of a pod's spec that is understood; whatever else would change what a container sees is refused. */
export type PodSpec = {
  readonly serviceAccountName?: string
  readonly hostNetwork?: boolean
  readonly nodeSelector?: Readonly<Record<string, string>>
  readonly affinity?: {
    readonly nodeAffinity?: {
      readonly requiredDuringSchedulingIgnoredDuringExecution?: {
        readonly nodeSelectorTerms: readonly {
          readonly matchFields?: readonly {
            readonly key: string
            readonly operator: string
            readonly values: readonly string[]
          }[]
        }[]
      }
    }
  }
  readonly initContainers?: readonly ContainerSpec[]
  readonly containers: readonly ContainerSpec[]
  readonly volumes?: readonly VolumeSpec[]
}
export type ContainerSpec = {
  readonly name: string
  readonly command?: readonly string[]
  readonly args?: readonly string[]
  readonly env?: readonly {
    readonly name: string
    readonly value?: string
    readonly valueFrom?: { readonly fieldRef?: { readonly fieldPath: string } }
  }[]
  readonly securityContext?: {
    readonly privileged?: boolean
    readonly readOnlyRootFilesystem?: boolean
    readonly allowPrivilegeEscalation?: boolean
    readonly capabilities?: { readonly add?: readonly string[]; readonly drop?: readonly string[] }
  }
  readonly volumeMounts?: readonly { readonly name: string; readonly mountPath: string; readonly readOnly?: boolean }[]
}
export type VolumeSpec = {
  readonly name: string
  readonly hostPath?: { readonly path: string; readonly type?: string }
  readonly emptyDir?: object
  readonly secret?: { readonly secretName: string }
  readonly projected?: { readonly sources: readonly ProjectedSource[] }
}
export type ProjectedSource = {
  readonly serviceAccountToken?: {
    readonly audience?: string
    readonly path: string
    readonly expirationSeconds?: number
  }
  readonly configMap?: {
    readonly name: string
    readonly items?: readonly { readonly key: string; readonly path: string }[]
  }
}

export type ContainerOptions = {
  readonly pod: PodSpec
  readonly node: string
  /** The folder with the image's files. */
  readonly image: string
  /** Where emptyDirs of this pod on this node are, and what its kubelet wrote for it (volumes.ts). */
  readonly scratch: string
}

/** What containerd grants without being asked. */
const DEFAULT_CAPABILITIES = [
  'audit_write',
  'chown',
  'dac_override',
  'fowner',
  'fsetid',
  'kill',
  'mknod',
  'net_bind_service',
  'net_raw',
  'setfcap',
  'setgid',
  'setpcap',
  'setuid',
  'sys_chroot',
]
/** Of the image, as deploy/Dockerfile has it. */
const PATH = '/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin'
/** In the mount namespace of a container, the node's own is hidden by the container's root. */
const ROOT = '/mnt'

/**
 * @returns the command that runs one of a pod's containers, after its init containers, in the namespaces of its node. It
 * replaces itself by the program. Where descriptor 3 is open, it says so there before.
 * @throws Error for what this cannot do as a runtime would.
 */
export function containerCommand(options: ContainerOptions, name: string): readonly string[] {
  const { pod } = options
  if (pod.hostNetwork !== true) throw new Error(`container ${name}: only pods on the node’s network are known here`)
  const container = pod.containers.find((each) => each.name === name)
  if (container === undefined) throw new Error(`the pod has no container ${name}`)
  const before = (pod.initContainers ?? []).map((each) => `${quotedWords(inside(options, each, false))}\n`)
  const script = `${before.join('')}exec ${quotedWords(inside(options, container, true))}`
  return ['sh', '-ec', script]
}

function inside(options: ContainerOptions, container: ContainerSpec, tell: boolean): readonly string[] {
  return ['unshare', '--mount', '--propagation=private', 'sh', '-ec', scriptOf(options, container, tell)]
}

function scriptOf({ pod, node, image, scratch }: ContainerOptions, container: ContainerSpec, tell: boolean): string {
  const { name, command = [], args = [], env = [], volumeMounts = [], securityContext = {} } = container
  const { privileged = false, readOnlyRootFilesystem = false, allowPrivilegeEscalation = true } = securityContext
  const variables = new Map(env.map((each) => [each.name, valueOf(each, node)]))
  const words = [...command, ...args].map((word) => expand(word, variables))
  if (command.length === 0) throw new Error(`container ${name}: has no command`)
  const mounts = volumeMounts.flatMap((mount) => {
    const volume = pod.volumes?.find((each) => each.name === mount.name)
    if (volume === undefined) throw new Error(`container ${name}: there is no volume ${mount.name}`)
    const [from, make] = placeOf(volume, scratch)
    // A runtime follows the links of the image, seen from inside of it.
    const to = `${ROOT}${mount.mountPath.replace(/^\/var\/run\//, '/run/')}`
    return [
      ...make,
      `mkdir -p ${quoted(to)}`,
      `mount -n --rbind ${quoted(from)} ${quoted(to)}`,
      ...(mount.readOnly === true ? [`mount -n -o remount,bind,ro ${quoted(to)}`] : []),
    ]
  })
  const layers = `${scratch}/root-${name}`
  return [
    // A layer of its own over the image, made anew for each start.
    `rm -rf ${quoted(layers)}`,
    `mkdir -p ${quoted(`${layers}/upper`)} ${quoted(`${layers}/work`)}`,
    `mount -n -t overlay -o ${quoted(`lowerdir=${image},upperdir=${layers}/upper,workdir=${layers}/work`)} overlay ${ROOT}`,
    `mount -n --rbind /proc ${ROOT}/proc`,
    `mount -n -t sysfs ${privileged ? '' : '-o ro '}sysfs ${ROOT}/sys`,
    ...(privileged
      ? [`mount -n --rbind /dev ${ROOT}/dev`]
      : [
          `mount -n --bind /proc/sys ${ROOT}/proc/sys`,
          `mount -n -o remount,bind,ro ${ROOT}/proc/sys`,
          `mount -n -t tmpfs -o mode=755 dev ${ROOT}/dev`,
          `for device in null zero full random urandom; do touch ${ROOT}/dev/$device; mount -n --bind /dev/$device ${ROOT}/dev/$device; done`,
        ]),
    // The kubelet makes these of the node's own, by dnsPolicy.
    `for file in resolv.conf hosts; do mount -n --bind "$(readlink -f /etc/$file)" ${ROOT}/etc/$file; done`,
    ...mounts,
    ...(readOnlyRootFilesystem ? [`mount -n -o remount,bind,ro ${ROOT}`] : []),
    ...(tell ? ['{ echo ready >&3; } 2>/dev/null || :'] : []),
    `exec ${quotedWords([
      'chroot',
      ROOT,
      'env',
      '-i',
      `PATH=${PATH}`,
      'HOME=/root',
      ...[...variables].map(([key, value]) => `${key}=${value}`),
      ...confined(securityContext.capabilities, privileged, allowPrivilegeEscalation),
      ...words,
    ])}`,
  ].join('\n')
}

function placeOf(
  { name, hostPath, emptyDir, secret, projected }: VolumeSpec,
  scratch: string,
): readonly [string, readonly string[]] {
  const folder = `${scratch}/${name}`
  if (emptyDir !== undefined) return [folder, [`mkdir -p ${quoted(folder)}`]]
  if (secret !== undefined || projected !== undefined)
    return [folder, [mustBeFolder(folder, `volume ${name} was not written`)]]
  if (hostPath === undefined) throw new Error(`volume ${name}: is of a type that is not known here`)
  const { path, type = '' } = hostPath
  switch (type) {
    case 'DirectoryOrCreate':
      return [path, [`mkdir -p ${quoted(path)}`]]
    case 'Directory':
      return [path, [mustBeFolder(path, `hostPath ${path} is no directory`)]]
    default:
      throw new Error(`volume ${name}: hostPath of type ${JSON.stringify(type)} is not known here`)
  }
}

const mustBeFolder = (folder: string, otherwise: string): string =>
  `[ -d ${quoted(folder)} ] || { echo ${quoted(otherwise)} >&2; exit 1; }`

/** A prefix that takes what the container may not have; nothing for one that is privileged. */
function confined(
  capabilities: NonNullable<ContainerSpec['securityContext']>['capabilities'],
  privileged: boolean,
  mayEscalate: boolean,
): readonly string[] {
  if (privileged) return []
  const { add = [], drop = [] } = capabilities ?? {}
  const granted = [
    ...(drop.includes('ALL') ? [] : DEFAULT_CAPABILITIES.filter((each) => !drop.includes(each.toUpperCase()))),
    ...add.map((each) => each.toLowerCase()),
  ]
  const bounding = ['-all', ...[...new Set(granted)].map((each) => `+${each}`)]
  return ['setpriv', `--bounding-set=${bounding.join()}`, ...(mayEscalate ? [] : ['--no-new-privs'])]
}

type Variable = NonNullable<ContainerSpec['env']>[number]
function valueOf({ name, value, valueFrom }: Variable, node: string): string {
  if (valueFrom === undefined) return value ?? ''
  if (valueFrom.fieldRef?.fieldPath === 'spec.nodeName') return node
  throw new Error(`variable ${name}: only spec.nodeName is known here`)
}

/** `$(NAME)` as the kubelet expands it; `$$` is a dollar; what is not known stays. */
const expand = (word: string, variables: ReadonlyMap<string, string>): string =>
  word.replaceAll(/\$\$|\$\(([A-Za-z_][A-Za-z0-9_]*)\)/g, (text, name?: string) =>
    name === undefined ? '$' : (variables.get(name) ?? text),
  )

const quoted = (word: string): string =>
  /^[A-Za-z0-9_/.,:=@%+-]+$/.test(word) ? word : `'${word.replaceAll("'", `'\\''`)}'`
const quotedWords = (words: readonly string[]): string => words.map(quoted).join(' ')
