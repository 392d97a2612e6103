// Label and field selectors as Kubernetes writes them: `app=web,tier!=db,env in (a,b),!old`, `metadata.name=x`.

import type { KubernetesObject, Pod } from '../../lib/k8s/objects.ts'

export type Predicate = (object: KubernetesObject) => boolean

/** What is wrong with a selector, for a 400. */
export class SelectorError extends Error {
  readonly code = 'FULMAR_SELECTOR'
}

const REQUIREMENTS_MAX = 100

/** @throws SelectorError */
export function labelPredicate(selector: string): Predicate | undefined {
  const requirements = splitOutside(selector).map(parseRequirement)
  if (requirements.length === 0) return undefined
  return ({ metadata }) => {
    const labels = metadata?.labels ?? {}
    return requirements.every((holds) => holds(labels))
  }
}

/** @throws SelectorError */
export function fieldPredicate(selector: string): Predicate | undefined {
  const requirements = splitOutside(selector).map((text) => {
    const [, field, operator, value] = /^([^=!\s]+)\s*(==|=|!=)\s*(.*)$/.exec(text) ?? []
    const read = FIELDS.get(field ?? '')
    if (field === undefined)
      throw new SelectorError(`invalid field selector ${JSON.stringify(text)}; write FIELD=VALUE`)
    if (read === undefined)
      throw new SelectorError(`field label not supported: ${field}; supported are ${[...FIELDS.keys()].join(', ')}`)
    return (object: KubernetesObject) => (read(object) === value) === (operator !== '!=')
  })
  return requirements.length === 0 ? undefined : (object) => requirements.every((holds) => holds(object))
}

const FIELDS: ReadonlyMap<string, (object: KubernetesObject) => string> = new Map(
  Object.entries({
    'metadata.name': ({ metadata }) => metadata?.name ?? '',
    'metadata.namespace': ({ metadata }) => metadata?.namespace ?? '',
    'spec.nodeName': (object) => (object as Pod).spec?.nodeName ?? '',
    'status.phase': (object) => (object as Pod).status?.phase ?? '',
  }),
)

type Labels = Readonly<Record<string, string>>
const KEY = String.raw`([A-Za-z0-9][-A-Za-z0-9_./]*)`
const EXISTS = new RegExp(`^(!?)\\s*${KEY}$`)
const EQUALS = new RegExp(`^${KEY}\\s*(==|=|!=)\\s*([-A-Za-z0-9_.]*)$`)
const SET = new RegExp(`^${KEY}\\s+(in|notin)\\s*\\(([^()]*)\\)$`)

function parseRequirement(text: string): (labels: Labels) => boolean {
  const exists = EXISTS.exec(text)
  if (exists !== null) return (labels) => Object.hasOwn(labels, exists[2]!) === (exists[1] === '')
  const equals = EQUALS.exec(text)
  if (equals !== null) return (labels) => (valueOf(labels, equals[1]!) === equals[3]) === (equals[2] !== '!=')
  const set = SET.exec(text)
  if (set === null) throw new SelectorError(`invalid label selector ${JSON.stringify(text)}`)
  const values = new Set(set[3]!.split(',').map((value) => value.trim()))
  // A label that is absent is not in any set, and so is `notin` every one.
  return (labels) => values.has(valueOf(labels, set[1]!) ?? '\0') === (set[2] === 'in')
}

const valueOf = (labels: Labels, key: string) => (Object.hasOwn(labels, key) ? labels[key] : undefined)

/** Splits at commas that are not inside parentheses; in linear time, whatever stands there. */
function splitOutside(selector: string): readonly string[] {
  const parts = (selector.match(/([^,(]|\([^)]*\)?)+/g) ?? []).map((part) => part.trim()).filter((part) => part !== '')
  if (parts.length > REQUIREMENTS_MAX) throw new SelectorError(`more than ${REQUIREMENTS_MAX} requirements`)
  return parts
}
