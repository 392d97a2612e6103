import t from 'tap'
import { containerCommand, type ContainerSpec, type PodSpec, type VolumeSpec } from './container.ts'

const OPTIONS = { node: 'h1', image: '/image', scratch: '/scratch' }
const pod = (container: Partial<ContainerSpec>, rest: Partial<PodSpec> = {}): PodSpec => ({
  hostNetwork: true,
  containers: [{ name: 'c', command: ['prog'], ...container }],
  ...rest,
})
/** The script that a container runs, of the nesting of shells only the innermost. */
const scriptOf = (of: PodSpec): string => containerCommand({ ...OPTIONS, pod: of }, 'c').at(-1)!

t.test('what a container sees and may', (t) => {
  const rows: readonly (readonly [string, PodSpec, RegExp])[] = [
    ['a layer over the image', pod({}), /mount -n -t overlay -o lowerdir=\/image,upperdir=\/scratch\/root-c\/upper/],
    [
      'a read-only root, after the mounts',
      pod(
        {
          securityContext: { readOnlyRootFilesystem: true },
          volumeMounts: [{ name: 'run', mountPath: '/run/fulmar' }],
        },
        { volumes: [{ name: 'run', hostPath: { path: '/run/fulmar', type: 'DirectoryOrCreate' } }] },
      ),
      /mkdir -p \/run\/fulmar\nmkdir -p \/mnt\/run\/fulmar\nmount -n --rbind \/run\/fulmar \/mnt\/run\/fulmar\nmount -n -o remount,bind,ro \/mnt\n/,
    ],
    [
      'a mount that is read only, of a folder that must be there',
      pod(
        { volumeMounts: [{ name: 'objects', mountPath: '/objects', readOnly: true }] },
        { volumes: [{ name: 'objects', hostPath: { path: '/from', type: 'Directory' } }] },
      ),
      /\[ -d \/from \] \|\| [\s\S]*mount -n --rbind \/from \/mnt\/objects\nmount -n -o remount,bind,ro \/mnt\/objects/,
    ],
    [
      'what its kubelet wrote, which must be there',
      pod(
        { volumeMounts: [{ name: 'api', mountPath: '/var/run/secrets/fulmar', readOnly: true }] },
        { volumes: [{ name: 'api', projected: { sources: [] } }] },
      ),
      /\[ -d \/scratch\/api \] \|\| [\s\S]*was not written[\s\S]*--rbind \/scratch\/api \/mnt\/run\/secrets\/fulmar\n/,
    ],
    [
      'all devices for one that is privileged',
      pod({ securityContext: { privileged: true } }),
      /--rbind \/dev \/mnt\/dev/,
    ],
    ['/proc/sys as it is for nobody else', pod({}), /remount,bind,ro \/mnt\/proc\/sys/],
    [
      'variables, also in words',
      pod({
        args: ['--cgroup', '/g/$(NODE)', '$(OTHER)', '$$(NODE)'],
        env: [{ name: 'NODE', valueFrom: { fieldRef: { fieldPath: 'spec.nodeName' } } }],
      }),
      /HOME=\/root NODE=h1 .* prog --cgroup \/g\/h1 .*\$\(OTHER\).* .*\$\(NODE\)/,
    ],
    [
      'the capabilities that it asks for and no other',
      pod({
        securityContext: { allowPrivilegeEscalation: false, capabilities: { drop: ['ALL'], add: ['NET_ADMIN'] } },
      }),
      /setpriv --bounding-set=-all,\+net_admin --no-new-privs prog/,
    ],
  ]
  for (const [name, of, wanted] of rows) t.match(scriptOf(of), wanted, name)
  t.end()
})

t.test('what this cannot do as a runtime would is refused', (t) => {
  const volume = (of: Partial<VolumeSpec>) =>
    pod({ volumeMounts: [{ name: 'v', mountPath: '/v' }] }, { volumes: [{ name: 'v', ...of }] })
  const rows: readonly (readonly [PodSpec, RegExp])[] = [
    [pod({}, { hostNetwork: false }), /only pods on the node’s network/],
    [pod({ volumeMounts: [{ name: 'v', mountPath: '/v' }] }), /there is no volume v/],
    [volume({}), /volume v: is of a type that is not known here/],
    [volume({ hostPath: { path: '/x', type: 'Socket' } }), /of type "Socket"/],
    [pod({ env: [{ name: 'IP', valueFrom: { fieldRef: { fieldPath: 'status.hostIP' } } }] }), /variable IP/],
    [pod({ command: [] }), /has no command/],
  ]
  for (const [of, message] of rows) t.throws(() => scriptOf(of), message)
  t.throws(() => containerCommand({ ...OPTIONS, pod: pod({}) }, 'other'), /no container other/)
  t.end()
})
