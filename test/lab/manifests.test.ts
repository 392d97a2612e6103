import { readdirSync, readFileSync } from 'node:fs'
import { join } from 'node:path'
import t from 'tap'
import { contains, parseCidr } from '../../lib/cidr.ts'
import type { EndpointSlice, Node, Pod, Service } from '../../lib/k8s/objects.ts'
import { combineFiles } from '../../relay/api/folder.ts'
import { parseManifest } from '../../relay/api/manifest-file.ts'
import { generateManifests } from './manifests.ts'

const SHOP = join(import.meta.dirname, 'shop')
const byHand = new Map(readdirSync(SHOP).map((file) => [file, readFileSync(join(SHOP, file), 'utf8')]))
const pools = (count: number) =>
  Array.from({ length: count }, (_, i) => ({ name: `p${i}`, nodes: [`p${i}-1`, `p${i}-2`] }))

const shops = [
  { name: 'by hand', texts: byHand, nodes: 5 },
  { name: 'two pools', texts: generateManifests({ pools: pools(2) }), nodes: 5 },
  {
    name: 'a cloud of its own',
    texts: generateManifests({ pools: [...pools(1), { name: 'cloud', nodes: ['cloud', 'cloud2'] }] }),
    nodes: 4,
  },
  { name: '250 pools', texts: generateManifests({ pools: pools(250) }), nodes: 501 },
]

for (const { name, texts, nodes: count } of shops)
  t.test(`a shop without contradictions: ${name}`, async (t) => {
    const { objects, problems } = combineFiles(
      new Map([...texts].map(([file, text]) => [file, parseManifest(file, text)])),
      new Map(),
    )
    t.strictSame(problems, [])
    const ofKind = <T>(kind: string) =>
      [...objects.values()].filter((each) => each.kind.kind === kind).map(({ object }) => object as T)
    const nodes = ofKind<Node>('Node')
    const pods = ofKind<Pod>('Pod')
    const services = ofKind<Service>('Service')
    t.equal(nodes.length, count)
    t.equal(pods.filter(({ metadata }) => metadata?.name?.endsWith('-client')).length, count, 'a client on every node')

    const wrong = pods.filter(({ spec, status }) => {
      const node = nodes.find(({ metadata }) => metadata?.name === spec?.nodeName)
      const cidrs = (node?.spec?.podCIDRs ?? []).map((text) => parseCidr(text)!)
      return !(status?.podIPs?.length === 2 && status.podIPs.every(({ ip }, family) => contains(cidrs[family]!, ip!)))
    })
    t.strictSame(wrong, [], 'pods have an address of each family from their node’s ranges')
    const addresses = pods.flatMap(({ status }) => (status?.podIPs ?? []).map(({ ip }) => ip))
    t.equal(new Set(addresses).size, addresses.length, 'no address twice')
    const virtual = services.flatMap(({ spec }) => (spec?.clusterIPs ?? []).filter((each) => each !== 'None'))
    t.equal(new Set(virtual).size, virtual.length, 'no ClusterIP twice')
    t.ok(
      virtual.every(
        (each) => contains(parseCidr('10.96.0.0/16')!, each) || contains(parseCidr('fd00:96::/108')!, each),
      ),
    )

    const podOf = new Map(pods.map((pod) => [pod.metadata?.name, pod]))
    for (const { metadata, endpoints, ports } of ofKind<EndpointSlice>('EndpointSlice')) {
      const service = services.find((each) => each.metadata?.name === metadata?.labels?.['kubernetes.io/service-name'])
      const sound = endpoints.every(({ addresses: [address], nodeName, targetRef }) => {
        const pod = podOf.get(targetRef?.name)
        const open = pod?.spec?.containers.flatMap((container) => container.ports ?? []) ?? []
        return (
          pod?.spec?.nodeName === nodeName &&
          pod?.status?.podIPs?.some(({ ip }) => ip === address) &&
          ports?.every(({ port, protocol }) =>
            open.some((each) => each.containerPort === port && each.protocol === protocol),
          )
        )
      })
      if (service === undefined || !sound) t.fail(`slice ${metadata?.name} does not fit its service or its pods`)
    }
  })

t.throws(() => generateManifests({ pools: pools(2_000) }), { name: 'RangeError', message: /4001 nodes/ })
