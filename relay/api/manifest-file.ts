// One file of the folder: YAML documents, or JSON, become objects of known kinds; what is wrong becomes a problem that
// names the file, the line, the document and the remedy. Nothing wrong in one document touches another.

import type { Document } from 'yaml'
import type { KubernetesObject, ObjectMeta } from '../../lib/k8s/objects.ts'
import { apiVersionOf, kindsNamed, type Kind } from './kinds.ts'
import { checkFields, checkMetadata, type Mistake, type Path } from './schema.ts'
import { splitDocuments } from './yaml-documents.ts'
import { explainYaml } from './yaml-mistake.ts'

export type ManifestObject = {
  readonly kind: Kind
  readonly namespace: string
  readonly name: string
  readonly object: KubernetesObject
  /** `FILE:LINE`. */
  readonly place: string
  /** Something in it was wrong and left out: where the object was known whole before, that one is better. */
  readonly flawed: boolean
}
export type ManifestFile = { readonly objects: readonly ManifestObject[]; readonly problems: readonly string[] }

const SUBDOMAIN = /^[a-z0-9]([-a-z0-9]*[a-z0-9])?(\.[a-z0-9]([-a-z0-9]*[a-z0-9])?)*$/
const SUBDOMAIN_MAX = 253
const LABEL = /^[a-z0-9]([-a-z0-9]{0,61}[a-z0-9])?$/
/** More than these of one file would only bury the others. */
const PROBLEMS_MAX = 50
const NAMESPACE_DEFAULT = 'default'

/** @param file its name relative to the folder, as people know it. */
export function parseManifest(file: string, text: string): ManifestFile {
  const documents = splitDocuments(text)
  const objects: ManifestObject[] = []
  const problems: string[] = []
  if (documents.length === 0) return { objects, problems: [`${file}: is empty: write objects into it or remove it`] }

  for (const [index, { document, part, lineAt }] of documents.entries()) {
    const source: Source = { file, number: index + 1, document, lineAt, problems }
    const [error] = document.errors
    if (error !== undefined) {
      const { offset, message } = explainYaml(part, error)
      problems.push(
        `${file}:${lineAt(offset)}: document ${source.number} is not valid YAML: ${message}: it is left out; correct it`,
      )
      continue
    }
    let value: unknown
    try {
      value = document.toJS()
    } catch (error) {
      problem(source, [], '', `cannot be read: ${(error as Error).message}: it is left out; correct it`)
      continue
    }
    if (value === null || value === undefined) continue
    for (const { item, path } of expandList(value)) {
      const object = parseObject(item, path, source)
      if (object !== undefined) objects.push(object)
    }
  }
  const rest = problems.length - PROBLEMS_MAX
  return {
    objects,
    problems: rest > 0 ? [...problems.slice(0, PROBLEMS_MAX), `${file}: ${rest} more mistakes`] : problems,
  }
}

type Source = {
  readonly file: string
  readonly number: number
  readonly document: Document.Parsed
  readonly lineAt: (offset: number) => number
  readonly problems: string[]
}

/** A List's items, or the object itself; items of a typed list (`NodeList`) have no type of their own. */
function expandList(value: unknown): readonly { readonly item: unknown; readonly path: Path }[] {
  if (
    !isMap(value) ||
    typeof value['kind'] !== 'string' ||
    !value['kind'].endsWith('List') ||
    !Array.isArray(value['items'])
  )
    return [{ item: value, path: [] }]
  const kind = value['kind'].slice(0, -'List'.length)
  const type = kind === '' ? {} : { apiVersion: value['apiVersion'], kind }
  return value['items'].map((item: unknown, index) => ({
    item: isMap(item) ? { ...type, ...item } : item,
    path: ['items', index],
  }))
}

function parseObject(value: unknown, path: Path, source: Source): ManifestObject | undefined {
  const refuse = (at: Path, label: string, message: string): undefined => {
    problem(source, [...path, ...at], label, `${message}: it is left out`)
    return undefined
  }
  if (!isMap(value)) return refuse([], '', 'is no object; write apiVersion, kind and metadata')
  const { apiVersion, kind: kindName, metadata } = value
  if (typeof kindName !== 'string' || kindName === '')
    return refuse([], '', 'has no kind; write one such as Node or Service')
  if (typeof apiVersion !== 'string') return refuse([], kindName, 'has no apiVersion')
  const kind = chooseKind(apiVersion, kindName)
  if (typeof kind === 'string') return refuse(['kind'], kindName, kind)
  if (!isMap(metadata) || typeof metadata['name'] !== 'string')
    return refuse(['metadata'], kindName, 'has no metadata.name that is text')
  const { name } = metadata
  const label = `${kindName} ${name}`
  if (name.length > SUBDOMAIN_MAX || !SUBDOMAIN.test(name))
    return refuse(['metadata', 'name'], label, 'metadata.name is no DNS name (a-z, 0-9, - and .)')
  const namespace = kind.namespaced ? (metadata['namespace'] ?? NAMESPACE_DEFAULT) : ''
  if (typeof namespace !== 'string' || (kind.namespaced && !LABEL.test(namespace)))
    return refuse(['metadata', 'namespace'], label, 'metadata.namespace is no DNS label (a-z, 0-9 and -)')

  const mistakes: Mistake[] = []
  const { namespace: _, ...rest } = checkMetadata(metadata, ['metadata'], mistakes) as ObjectMeta
  const fields = checkFields(kind.kind, value, mistakes) as object | undefined
  for (const mistake of mistakes)
    problem(
      source,
      [...path, ...mistake.path],
      label,
      `${pathText(mistake.path)} ${mistake.message}: it is left out; correct it`,
    )
  if (fields === undefined) return undefined
  const object = {
    ...fields,
    apiVersion: apiVersionOf(kind),
    kind: kindName,
    metadata: { ...rest, name, ...(kind.namespaced && { namespace }) },
  }
  return { kind, namespace, name, object, place: `${source.file}:${lineOf(source, path)}`, flawed: mistakes.length > 0 }
}

/** The kind, or why there is none. */
function chooseKind(apiVersion: string, kindName: string): Kind | string {
  const candidates = kindsNamed(kindName)
  const kind = candidates.find((candidate) =>
    [candidate.version, ...(candidate.olderVersions ?? [])].some(
      (version) => apiVersionOf({ ...candidate, version }) === apiVersion,
    ),
  )
  if (kind !== undefined) return kind
  if (kindName === 'Secret') return 'is not served: every node may read this API; keep secrets elsewhere'
  if (candidates.length === 0)
    return `kind ${JSON.stringify(kindName)} of apiVersion ${JSON.stringify(apiVersion)} is not known here; correct the kind or move the object elsewhere`
  return `apiVersion ${JSON.stringify(apiVersion)} has no ${kindName}; write ${candidates.map(apiVersionOf).join(' or ')}`
}

function problem(source: Source, path: Path, label: string, message: string): void {
  const named = label === '' ? '' : ` (${label})`
  source.problems.push(`${source.file}:${lineOf(source, path)}: document ${source.number}${named}: ${message}`)
}

/** Of the value at the path, or of the nearest thing around it that the text has. */
function lineOf({ document, lineAt }: Source, path: Path): number {
  for (let depth = path.length; depth >= 0; depth--) {
    const node = depth === 0 ? document.contents : document.getIn(path.slice(0, depth), true)
    const range = (node as { range?: readonly number[] | null } | undefined)?.range
    if (range) return lineAt(range[0]!)
  }
  return lineAt(document.range[0])
}

/** `spec.ports[0].port`. */
const pathText = (path: Path) =>
  path
    .map((part) => (typeof part === 'number' ? `[${part}]` : `.${part}`))
    .join('')
    .slice(1)
const isMap = (value: unknown): value is Readonly<Record<string, unknown>> =>
  typeof value === 'object' && value !== null && !Array.isArray(value)
