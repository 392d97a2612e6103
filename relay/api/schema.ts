// What an object must look like so that those who read it need not doubt it: the fields that the mesh uses, with their
// types and what makes a value possible. A wrong value is named and left out, the rest of the object stays.

import { familyOf, parseCidr } from '../../lib/cidr.ts'

export type Path = readonly (string | number)[]
export type Mistake = { readonly path: Path; readonly message: string }

/** @returns the value without what is wrong in it; undefined if nothing is left. */
type Check = (value: unknown, path: Path, mistakes: Mistake[]) => unknown
type Fields = Readonly<Record<string, Check>>

/** Checks the fields of an object of that kind beside its metadata; a kind that the mesh does not read passes. */
export function checkFields(kind: string, object: object, mistakes: Mistake[]): unknown {
  return (SHAPES[kind] ?? asItIs)(object, [], mistakes)
}

/** Labels, annotations and the like; name and namespace are the caller's. */
export function checkMetadata(metadata: unknown, path: Path, mistakes: Mistake[]): unknown {
  return METADATA(metadata, path, mistakes)
}

const fail = (path: Path, mistakes: Mistake[], value: unknown, message: string): undefined => {
  mistakes.push({ path, message: `${JSON.stringify(value)?.slice(0, 80)} ${message}` })
  return undefined
}

const asItIs: Check = (value) => value

const text =
  (test: (value: string) => boolean = () => true, otherwise = ''): Check =>
  (value, path, mistakes) => {
    if (typeof value !== 'string') return fail(path, mistakes, value, 'is not text: quote it')
    return test(value) ? value : fail(path, mistakes, value, otherwise)
  }
/** Text that YAML took for something else (`true`, `1`): named, but what was meant is clear. */
const quoted: Check = (value, path, mistakes) => {
  if (typeof value === 'string') return value
  fail(path, mistakes, value, 'is not text: quote it')
  return typeof value === 'object' ? undefined : JSON.stringify(value)
}
const integer =
  (min: number, max: number): Check =>
  (value, path, mistakes) =>
    Number.isInteger(value) && Number(value) >= min && Number(value) <= max
      ? value
      : fail(path, mistakes, value, `is not a whole number from ${min} to ${max}`)
const flag: Check = (value, path, mistakes) =>
  typeof value === 'boolean' ? value : fail(path, mistakes, value, 'is neither true nor false')
const either =
  (first: Check, second: Check): Check =>
  (value, path, mistakes) =>
    first(value, path, []) === undefined ? second(value, path, mistakes) : value
const list =
  (item: Check): Check =>
  (value, path, mistakes) =>
    Array.isArray(value)
      ? value.map((each, index) => item(each, [...path, index], mistakes)).filter((each) => each !== undefined)
      : fail(path, mistakes, value, 'is not a list')
const map =
  (item: Check): Check =>
  (value, path, mistakes) =>
    isObject(value)
      ? Object.fromEntries(
          Object.entries(value)
            .map(([key, each]) => [key, each === null ? '' : item(each, [...path, key], mistakes)] as const)
            .filter(([, each]) => each !== undefined),
        )
      : fail(path, mistakes, value, 'is not a map')
/** Fields that are not named pass; a null is as good as absent; without a required field the object is left out. */
const object =
  (fields: Fields, required: readonly string[] = []): Check =>
  (value, path, mistakes) => {
    if (!isObject(value)) return fail(path, mistakes, value, 'is not a map')
    const result: Record<string, unknown> = {}
    for (const [key, each] of Object.entries(value)) {
      // A field may be called as something that every object has.
      const check = Object.hasOwn(fields, key) ? fields[key]! : asItIs
      const checked = each === null ? undefined : check(each, [...path, key], mistakes)
      if (checked !== undefined) result[key] = checked
    }
    const missing = required.find((key) => (value[key] ?? undefined) === undefined)
    if (missing !== undefined) return fail(path, mistakes, value, `has no ${missing}`)
    return required.every((key) => key in result) ? result : undefined
  }
const oneOf = (...values: readonly string[]): Check =>
  text((value) => values.includes(value), `is none of ${values.join(', ')}`)

const isObject = (value: unknown): value is Readonly<Record<string, unknown>> =>
  typeof value === 'object' && value !== null && !Array.isArray(value)

const address = text((value) => familyOf(value) !== undefined, 'is no IP address')
const cidr = text((value) => parseCidr(value) !== undefined, 'is no CIDR such as 10.244.1.0/24 or fd00:244:1::/64')
const clusterIp = text(
  (value) => value === '' || value === 'None' || familyOf(value) !== undefined,
  'is no IP address and not None',
)
const label = text(
  (value) => /^[a-z0-9]([-a-z0-9]{0,61}[a-z0-9])?$/.test(value),
  'is no DNS label (a-z, 0-9 and -, up to 63)',
)
const family = oneOf('IPv4', 'IPv6')
const protocol = oneOf('TCP', 'UDP', 'SCTP')
const port = integer(1, 65_535)
const plain = text()
const METADATA = object({ labels: map(quoted), annotations: map(quoted), uid: plain, creationTimestamp: plain })

const endpointSliceAddresses: Check = (value, path, mistakes) => {
  if (!isObject(value) || !Array.isArray(value['endpoints'])) return value
  const wanted = { IPv4: 4, IPv6: 6 }[String(value['addressType'])]
  if (wanted === undefined) return value
  const fitting = text(
    (item) => familyOf(item) === wanted,
    `is no ${String(value['addressType'])} address, as addressType says`,
  )
  const endpoint = object({ addresses: list(fitting) }, ['addresses'])
  return { ...value, endpoints: list(endpoint)(value['endpoints'], [...path, 'endpoints'], mistakes) }
}

const SHAPES: Readonly<Record<string, Check>> = {
  Node: object({
    spec: object({ podCIDR: cidr, podCIDRs: list(cidr) }),
    status: object({
      addresses: list((value, path, mistakes) => {
        const kept = object({ type: plain, address: plain }, ['type', 'address'])(value, path, mistakes)
        if (!isObject(kept) || kept['type'] !== 'InternalIP') return kept
        return object({ address }, ['address'])(kept, path, mistakes)
      }),
      conditions: list(object({ type: plain, status: plain }, ['type', 'status'])),
    }),
  }),
  Pod: object({
    spec: object({
      nodeName: plain,
      hostname: label,
      subdomain: label,
      hostNetwork: flag,
      containers: list(
        object({ name: plain, ports: list(object({ name: plain, containerPort: port, protocol }, ['containerPort'])) }),
      ),
    }),
    status: object({
      phase: plain,
      podIP: address,
      podIPs: list(object({ ip: address }, ['ip'])),
      conditions: list(object({ type: plain, status: plain }, ['type', 'status'])),
    }),
  }),
  Service: object({
    spec: object({
      type: oneOf('ClusterIP', 'NodePort', 'LoadBalancer', 'ExternalName'),
      clusterIP: clusterIp,
      clusterIPs: list(clusterIp),
      externalIPs: list(address),
      externalName: plain,
      ipFamilies: list(family),
      selector: map(quoted),
      publishNotReadyAddresses: flag,
      ports: list(
        object(
          {
            name: plain,
            port,
            protocol,
            nodePort: integer(0, 65_535),
            targetPort: either(port, plain),
            appProtocol: plain,
          },
          ['port'],
        ),
      ),
    }),
  }),
  EndpointSlice: (value, path, mistakes) =>
    endpointSliceAddresses(
      object(
        {
          addressType: oneOf('IPv4', 'IPv6', 'FQDN'),
          ports: list(object({ name: plain, port, protocol, appProtocol: plain })),
          endpoints: list(
            object(
              {
                addresses: list(plain),
                hostname: label,
                nodeName: plain,
                zone: plain,
                conditions: object({ ready: flag, serving: flag, terminating: flag }),
                targetRef: object({ kind: plain, name: plain, namespace: plain }),
              },
              ['addresses'],
            ),
          ),
        },
        ['addressType'],
      )(value, path, mistakes),
      path,
      mistakes,
    ),
  NodePool: object({ spec: object({ type: plain, interConnectivity: flag }), status: object({ nodes: list(plain) }) }),
  Gateway: object({
    spec: object({
      exposeType: plain,
      endpoints: list(
        object(
          {
            nodeName: plain,
            type: plain,
            port: integer(0, 65_535),
            underNAT: flag,
            natType: plain,
            publicIP: text((value) => value === '' || familyOf(value) !== undefined, 'is no IP address'),
            publicPort: integer(0, 65_535),
          },
          ['nodeName'],
        ),
      ),
    }),
  }),
  Lease: object({
    spec: object({
      holderIdentity: plain,
      leaseDurationSeconds: integer(0, 1 << 30),
      renewTime: plain,
      acquireTime: plain,
    }),
  }),
}
