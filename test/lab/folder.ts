// Reads a folder of Kubernetes objects as YAML or JSON, as leniently as the relay does: what cannot be read is named and
// left out, the rest counts.

import { readdirSync, readFileSync } from 'node:fs'
import { join } from 'node:path'
import { parseAllDocuments } from 'yaml'
import type {
  EndpointSlice,
  KubernetesObject,
  Node,
  NodePool,
  Pod,
  RavenGateway,
  Service,
} from '../../lib/k8s/objects.ts'
import { UsageError } from '../../lib/net/lifetime.ts'
import { explainYaml } from '../../relay/api/yaml-mistake.ts'

export type Objects = {
  readonly nodes: readonly Node[]
  readonly pods: readonly Pod[]
  readonly services: readonly Service[]
  readonly endpointSlices: readonly EndpointSlice[]
  readonly nodePools: readonly NodePool[]
  readonly gateways: readonly RavenGateway[]
  /** `FILE:LINE: what is wrong`. */
  readonly problems: readonly string[]
}

const FILE = /\.(ya?ml|json)$/
const FILES_MAX = 10_000

/** @throws UsageError where there is no such folder. */
export function readFolder(directory: string): Objects {
  let files: string[]
  try {
    files = readdirSync(directory)
      .filter((name) => FILE.test(name))
      .toSorted()
  } catch (cause) {
    throw new UsageError(`--manifests ${directory}: cannot be read as a folder; name a folder of YAML files`, { cause })
  }
  if (files.length === 0)
    throw new UsageError(`--manifests ${directory}: has no file that ends in .yaml, .yml or .json`)
  const problems: string[] =
    files.length > FILES_MAX ? [`${directory}: only the first ${FILES_MAX} files are read`] : []
  const objects = files.slice(0, FILES_MAX).flatMap((name) => readObjects(join(directory, name), problems))
  const ofKind = <T extends KubernetesObject>(kind: string, group: string) =>
    objects.filter((object) => object.kind === kind && groupOf(object) === group) as T[]
  return {
    nodes: ofKind<Node>('Node', ''),
    pods: ofKind<Pod>('Pod', ''),
    services: ofKind<Service>('Service', ''),
    endpointSlices: ofKind<EndpointSlice>('EndpointSlice', 'discovery.k8s.io'),
    nodePools: ofKind<NodePool>('NodePool', 'apps.openyurt.io'),
    gateways: ofKind<RavenGateway>('Gateway', 'raven.openyurt.io'),
    problems,
  }
}

const groupOf = ({ apiVersion }: KubernetesObject) => (apiVersion?.includes('/') ? apiVersion.split('/')[0]! : '')

function readObjects(file: string, problems: string[]): readonly KubernetesObject[] {
  let text: string
  try {
    text = readFileSync(file, 'utf8')
  } catch (error) {
    problems.push(`${file}: ${(error as Error).message}`)
    return []
  }
  const documents = parseAllDocuments(text, { prettyErrors: false })
  if (!Array.isArray(documents)) return []
  return documents.flatMap((document) => {
    const [error] = document.errors
    if (error !== undefined) {
      const { offset, message } = explainYaml(text, error)
      problems.push(`${file}:${lineOf(text, offset)}: ${message}: the document is left out`)
      return []
    }
    const value: unknown = document.toJS()
    return itemsOf(value).filter((item): item is KubernetesObject => {
      const named =
        isObject(item) &&
        typeof item['kind'] === 'string' &&
        isObject(item['metadata']) &&
        typeof item['metadata']['name'] === 'string'
      if (!named && item !== null)
        problems.push(
          `${file}:${lineOf(text, document.range[0])}: is no object with kind and metadata.name: it is left out`,
        )
      return named
    })
  })
}

/** A List's items, or the object itself. */
const itemsOf = (value: unknown): readonly unknown[] =>
  isObject(value) && value['kind'] === 'List' && Array.isArray(value['items']) ? value['items'] : [value]

const isObject = (value: unknown): value is Record<string, unknown> =>
  typeof value === 'object' && value !== null && !Array.isArray(value)

const lineOf = (text: string, offset: number) => text.slice(0, offset).split('\n').length
