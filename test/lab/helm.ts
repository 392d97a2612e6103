// Helm, where a machine has it: only what checks the chart uses it, and nothing of the product.

import { execFile } from 'node:child_process'
import { existsSync, mkdtempSync, rmSync, writeFileSync } from 'node:fs'
import { homedir, tmpdir } from 'node:os'
import { join } from 'node:path'
import { promisify } from 'node:util'
import { parseAllDocuments } from 'yaml'
import { UsageError } from '../../lib/net/lifetime.ts'
import { find } from '../../lib/net/preflight.ts'
import { REPOSITORY } from './paths.ts'

export const CHART = `${REPOSITORY}/deploy/chart`
/** Beside the default, those for kinds of clusters. */
export const VALUES = ['kubeadm', 'openyurt', 'kubeedge'].map((name) => `${CHART}/values/${name}.yaml`)
const INSTALL = 'go install helm.sh/helm/v3/cmd/helm@v3.19.5'
const OUTPUT_MAX = 16 << 20
const TIMEOUT_MS = 60_000

/** Where `go install` puts it counts too. @returns undefined where there is none. */
export function findHelm(): string | undefined {
  const byGo = join(process.env['GOPATH'] ?? join(homedir(), 'go'), 'bin/helm')
  return find('helm') ?? (existsSync(byGo) ? byGo : undefined)
}

/** Why there is none here; false where there is one. */
export const lacksHelm = (): string | false => findHelm() === undefined && `needs helm: ${INSTALL}`

/** @throws UsageError where there is no helm; Error with what it says where it fails. */
export async function helm(...args: readonly string[]): Promise<string> {
  const program = findHelm()
  if (program === undefined)
    throw new UsageError(
      `the chart is rendered by helm, which this machine lacks: put helm 3 into PATH, or with Go: ${INSTALL}`,
    )
  const { stdout } = await promisify(execFile)(program, args, { maxBuffer: OUTPUT_MAX, timeout: TIMEOUT_MS })
  return stdout
}

/** A helm that `go install` built takes the oldest Kubernetes for its own. */
const KUBERNETES = ['--kube-version', '1.32.0']

/** The objects of an installation, as YAML. @param args further flags, such as `--values FILE`. */
export const template = (...args: readonly string[]): Promise<string> =>
  helm('template', 'fulmar', CHART, '--namespace', 'fulmar-system', ...KUBERNETES, ...args)

export async function renderChart(values: object): Promise<string> {
  const folder = mkdtempSync(join(tmpdir(), 'fulmar-'))
  try {
    writeFileSync(join(folder, 'values.json'), JSON.stringify(values))
    return await template('--values', join(folder, 'values.json'))
  } finally {
    rmSync(folder, { recursive: true })
  }
}

export type RenderedObject = { readonly kind: string; readonly metadata: { readonly name: string } } & Readonly<
  Record<string, unknown>
>

/** @param rendered what `template` gives. @throws YAMLParseError where it is no YAML. */
export const objectsIn = (rendered: string): readonly RenderedObject[] =>
  [parseAllDocuments(rendered)].flat().flatMap((document) => {
    if ('errors' in document && document.errors.length > 0) throw document.errors[0]!
    const object = 'toJS' in document ? (document.toJS() as RenderedObject | null) : null
    return object === null ? [] : [object]
  })
