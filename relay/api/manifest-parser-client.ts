// Parses large manifests in a thread of its own: a megabyte of YAML takes seconds, in which the relay has packets to
// forward. The thread is there only while there is something to parse; as it takes 200 ms to start and leaves 10 MB behind,
// small files do without.

import { extname } from 'node:path'
import { Worker } from 'node:worker_threads'
import type { KubernetesObject } from '../../lib/k8s/objects.ts'
import { apiVersionOf, kindsNamed, type Kind } from './kinds.ts'
import { parseManifest, type ManifestFile } from './manifest-file.ts'
import type { ParsedManifest, ParseRequest } from './manifest-parser-server.ts'

export type ManifestParser = {
  /** One file at a time. What cannot be parsed in time or memory is a file without objects and with a problem. */
  readonly parse: (file: string, text: string) => Promise<ManifestFile>
  /** Ends the thread until the next file. */
  readonly rest: () => Promise<void>
}
export type ParserLimits = {
  readonly deadlineMs?: number
  readonly heapMb?: number
}

/** Takes 5 to 30 ms. */
const SMALL_CHARACTERS = 8 << 10
/** 4 MiB take 5 s of an idle core and 200 MB. */
const DEADLINE_MS = 60_000
const HEAP_MB = 512
const SERVER = new URL(`./manifest-parser-server${extname(import.meta.url)}`, import.meta.url)

export function createManifestParser(
  { deadlineMs = DEADLINE_MS, heapMb = HEAP_MB }: ParserLimits,
  signal: AbortSignal,
): ManifestParser {
  let worker: Worker | undefined

  const rest = async (): Promise<void> => {
    const ending = worker
    worker = undefined
    await ending?.terminate()
  }
  const ask = (request: ParseRequest): Promise<ManifestFile> => {
    worker ??= new Worker(SERVER, { resourceLimits: { maxOldGenerationSizeMb: heapMb } })
    const thread = worker
    return new Promise((resolve, reject) => {
      const settle = (): void => {
        clearTimeout(timer)
        signal.removeEventListener('abort', onAbort)
        thread.off('message', onMessage).off('error', onError).off('exit', onExit)
      }
      const onMessage = (json: string): void => {
        settle()
        resolve(withKinds(JSON.parse(json) as ParsedManifest))
      }
      const onError = (error: Error): void => {
        settle()
        reject(error)
      }
      const onExit = (): void => onError(new Error('the parser ended'))
      const onAbort = (): void => onError(new Error('the relay stops'))
      const timer = setTimeout(
        () => onError(new Error(`it takes more than ${deadlineMs / 1000} s to parse`)),
        deadlineMs,
      )
      signal.addEventListener('abort', onAbort)
      thread.on('message', onMessage).on('error', onError).on('exit', onExit)
      thread.postMessage(request)
    })
  }
  return {
    rest,
    parse: async (file, text) => {
      if (text.length <= SMALL_CHARACTERS) return parseManifest(file, text)
      if (signal.aborted) return broken(file, 'the relay stops')
      try {
        return await ask({ file, text })
      } catch (error) {
        await rest()
        return broken(file, (error as Error).message)
      }
    },
  }
}

const broken = (file: string, reason: string): ManifestFile => ({
  objects: [],
  problems: [`${file}: cannot be parsed: ${reason}: it is left out; correct or split it`],
})

function withKinds({ objects, problems }: ParsedManifest): ManifestFile {
  return { problems, objects: objects.map((each) => ({ ...each, kind: kindOfObject(each.object) })) }
}

/** The parser lets through only kinds that it knows. */
const kindOfObject = ({ apiVersion, kind = '' }: KubernetesObject): Kind =>
  kindsNamed(kind).find((candidate) => apiVersionOf(candidate) === apiVersion)!
