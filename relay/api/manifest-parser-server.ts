// The thread that parses manifests: a file comes in, what it holds goes back as JSON, which costs the other side a tenth of
// what a structured clone does.

import { parentPort } from 'node:worker_threads'
import { parseManifest, type ManifestFile, type ManifestObject } from './manifest-file.ts'

export type ParseRequest = { readonly file: string; readonly text: string }
/** A `ManifestFile` without kinds, which follow from the objects. */
export type ParsedManifest = Pick<ManifestFile, 'problems'> & {
  readonly objects: readonly Omit<ManifestObject, 'kind'>[]
}

parentPort?.on('message', ({ file, text }: ParseRequest) => {
  const { objects, problems } = parseManifest(file, text)
  const parsed: ParsedManifest = { objects: objects.map(({ kind, ...rest }) => rest), problems }
  parentPort!.postMessage(JSON.stringify(parsed))
})
