import t from 'tap'
import { parseManifest } from '../../../relay/api/manifest-file.ts'

const NODE = 'apiVersion: v1\nkind: Node\nmetadata: { name: a }\n'

type Row = {
  name: string
  text: string
  /** `Kind namespace/name` of what is read. */
  objects: readonly string[]
  problems?: readonly RegExp[]
}
const rows: readonly Row[] = [
  { name: 'one object', text: NODE, objects: ['Node /a'] },
  { name: 'documents, empty ones and comments', text: `# hello\n---\n${NODE}---\n---\n# bye\n`, objects: ['Node /a'] },
  {
    name: 'JSON',
    text: '{"apiVersion":"v1","kind":"Service","metadata":{"name":"s","namespace":"n"}}',
    objects: ['Service n/s'],
  },
  {
    name: 'no namespace is the default one',
    text: 'apiVersion: v1\nkind: Pod\nmetadata: { name: p }\n',
    objects: ['Pod default/p'],
  },
  {
    name: 'Lists, of anything and of a type',
    text: `apiVersion: v1\nkind: List\nitems:\n- {apiVersion: v1, kind: Node, metadata: {name: a}}\n---\napiVersion: v1\nkind: NodeList\nitems:\n- metadata: {name: b}\n`,
    objects: ['Node /a', 'Node /b'],
  },
  {
    name: 'a broken document does not touch its neighbours',
    text: `${NODE}---\nkind: [Node\nmetadata: {}\n---\napiVersion: v1\nkind: Node\nmetadata: { name: b }\n`,
    objects: ['Node /a', 'Node /b'],
    problems: [
      /^f\.yaml:5: document 2 is not valid YAML: “kind: \[Node”: the \[ is never closed.*left out; correct it$/,
    ],
  },
  { name: 'fields that every object has', text: `${NODE}spec: { valueOf: 1, toString: x }\n`, objects: ['Node /a'] },
  { name: 'an alias to nothing', text: 'kind: *nobody\n', objects: [], problems: [/^f\.yaml:1: document 1.*nobody/] },
  {
    name: 'a tab',
    text: `${NODE}spec:\n\tx: 1\n`,
    objects: [],
    problems: [/^f\.yaml:5: document 1 is not valid YAML: “x: 1”: is indented by a tab/],
  },
  {
    name: 'a wrong kind, a wrong version, a version of another kind',
    text: 'apiVersion: v1\nkind: Nodee\nmetadata: {name: a}\n---\napiVersion: v2\nkind: Node\nmetadata: {name: a}\n---\napiVersion: apps.openyurt.io/v1alpha9\nkind: NodePool\nmetadata: {name: a}\n',
    objects: [],
    problems: [
      /^f\.yaml:2: document 1 \(Nodee\): kind "Nodee" of apiVersion "v1" is not known here/,
      /^f\.yaml:6: document 2 \(Node\): apiVersion "v2" has no Node; write v1/,
      /^f\.yaml:10: document 3 \(NodePool\): .* write apps\.openyurt\.io\/v1beta2/,
    ],
  },
  {
    name: 'no kind, no apiVersion, no name, no object, a name that is none',
    text: 'a: 1\n---\nkind: Node\n---\napiVersion: v1\nkind: Node\n---\n- x\n---\napiVersion: v1\nkind: Node\nmetadata: {name: A_b}\n',
    objects: [],
    problems: [
      /document 1: has no kind/,
      /document 2 \(Node\): has no apiVersion/,
      /document 3 .*no metadata\.name/,
      /document 4: is no object/,
      /^f\.yaml:12: document 5 \(Node A_b\)/,
    ],
  },
  {
    name: 'secrets are not for every node',
    text: 'apiVersion: v1\nkind: Secret\nmetadata: {name: a}\n',
    objects: [],
    problems: [/Secret.*not served/],
  },
  {
    name: 'an impossible CIDR is left out, the node stays',
    text: `${NODE}spec:\n  podCIDRs:\n    - 10.244.1.0/24\n    - 10.244.999.0/24\n`,
    objects: ['Node /a'],
    problems: [/^f\.yaml:7: document 1 \(Node a\): spec\.podCIDRs\[1\] "10\.244\.999\.0\/24" is no CIDR/],
  },
  {
    name: 'an address of the wrong family, in an item of a List',
    text: 'apiVersion: v1\nkind: List\nitems:\n- apiVersion: discovery.k8s.io/v1\n  kind: EndpointSlice\n  metadata: {name: e}\n  addressType: IPv4\n  endpoints:\n  - addresses: [10.0.0.1]\n  - addresses: ["fd00::1"]\n',
    objects: ['EndpointSlice default/e'],
    problems: [/^f\.yaml:10: .*endpoints\[1\]\.addresses\[0\] "fd00::1" is no IPv4 address/],
  },
  {
    name: 'a port that is text, a port that is missing, a label that is not text',
    text: 'apiVersion: v1\nkind: Service\nmetadata: {name: s, labels: {x: true}}\nspec:\n  ports:\n  - port: "80"\n  - {protocol: UDP}\n  - port: 81\n',
    objects: ['Service default/s'],
    problems: [
      /metadata\.labels\.x true is not text: quote it/,
      /^f\.yaml:6: .*spec\.ports\[0\]\.port "80" is not a whole number/,
      /^f\.yaml:7: .*spec\.ports\[1\] .*has no port/,
    ],
  },
  {
    name: 'a NodePool of an older version is one of the version that is served',
    text: 'apiVersion: apps.openyurt.io/v1beta1\nkind: NodePool\nmetadata: {name: a}\n',
    objects: ['NodePool /a'],
  },
  {
    name: 'a bracket that closes nothing in a document between two',
    text: `# first\n---\n${NODE}---\n}}}\n---\n${NODE.replace('name: a', 'name: b')}`,
    objects: ['Node /a', 'Node /b'],
    problems: [/^f\.yaml:7: document 2 is not valid YAML: “}}}”/],
  },
  {
    name: 'a quote that is never closed ends with its document',
    text: `kind: "Node\n---\n${NODE}`,
    objects: ['Node /a'],
    problems: [/^f\.yaml:1: document 1 is not valid YAML/],
  },
  {
    name: 'an empty file is a mistake, not a wish to remove all',
    text: '',
    objects: [],
    problems: [/f\.yaml: is empty/],
  },
]

for (const { name, text, objects, problems = [] } of rows) {
  t.test(name, async (t) => {
    const file = parseManifest('f.yaml', text)
    t.strictSame(
      file.objects.map(({ kind, namespace, name }) => `${kind.kind} ${namespace}/${name}`),
      objects,
    )
    t.equal(file.problems.length, problems.length, file.problems.join('\n'))
    for (const [i, problem] of problems.entries()) t.match(file.problems[i], problem)
  })
}

t.test('what is wrong is left out of the object, what is meant is kept', async (t) => {
  const text =
    'apiVersion: v1\nkind: Service\nmetadata: {name: s, labels: {x: true}}\nspec:\n  clusterIP: 10.0.0.300\n  ports: [{port: 0}, {port: 81}]\n'
  const [object] = parseManifest('f.yaml', text).objects
  t.same(object?.object, {
    apiVersion: 'v1',
    kind: 'Service',
    metadata: { name: 's', namespace: 'default', labels: { x: 'true' } },
    spec: { ports: [{ port: 81 }] },
  })
  t.equal(object?.flawed, true)
})

t.test('a bomb of aliases costs one document', async (t) => {
  const bomb = `a: &a [x,x,x,x,x,x,x,x,x]\n${'bcdefgh'
    .split('')
    .map((name, i) => `${name}: &${name} [${Array(9).fill(`*${'abcdefg'[i]}`).join(',')}]`)
    .join('\n')}\n`
  const { objects, problems } = parseManifest('f.yaml', `${bomb}---\n${NODE}`)
  t.equal(objects.length, 1)
  t.match(problems[0], /document 1/)
})
