// The Kubernetes API of churn-world.ts, as a process of its own that answers for little else than bytes that it has ready:
// lists in pages, watches with bookmarks, over TLS with client certificates. It makes the changes, and tells the probers of
// those that they are to see, by datagrams.

import { createSocket } from 'node:dgram'
import type { IncomingMessage, ServerResponse } from 'node:http'
import { createServer, type Server } from 'node:https'
import type { AddressInfo } from 'node:net'
import { setTimeout as pause } from 'node:timers/promises'
import type { KeyPair } from '../../lib/certificates.ts'
import { random } from '../../test/lib/random.ts'
import { serve } from '../../test/lib/netns.ts'
import type { Probe } from './churn-prober.ts'
import { clusterIpOf, nodeTexts, serviceText, sliceText, type ChurnSize } from './churn-world.ts'

export type ApiMarks = {
  /** CLOCK_MONOTONIC in ms: of the first request, and of the last page of a list, since the last call. */
  readonly firstMs: number
  readonly listedMs: number
}
export type Churn = {
  readonly seconds: number
  readonly perSecond: number
  /** UDP ports of the probers. */
  readonly probers: readonly number[]
}

const EVENTS_MAX = 20_000
const BOOKMARK_MS = 60_000
/** A service is left alone for so long after a change, so that its probe has an end. */
const REST_MS = 3_000

type Collection = {
  readonly kind: string
  readonly apiVersion: string
  /** Texts of objects without their type, as lists have them. */
  readonly texts: string[]
  readonly pages: Map<string, Buffer>
  readonly events: { readonly version: number; readonly line: string }[]
  readonly watchers: Set<ServerResponse>
}

let size: ChurnSize
let collections: ReadonlyMap<string, Collection>
let version = 1_000_000
let moved: boolean[] = []
let marks = { firstMs: 0, listedMs: 0 }
let server: Server | undefined
const nowMs = (): number => Number(process.hrtime.bigint()) / 1e6

const SERVICES = '/api/v1/services'
const SLICES = '/apis/discovery.k8s.io/v1/endpointslices'
const NODES = '/api/v1/nodes'
/** Those of the node: none. */
const PODS = '/api/v1/pods'

function collection(kind: string, apiVersion: string, texts: readonly string[]): Collection {
  return { kind, apiVersion, texts: [...texts], pages: new Map(), events: [], watchers: new Set() }
}

/** @returns undefined past the end. Pages are kept as they are sent. */
function pageOf(of: Collection, limit: number, start: number): Buffer | undefined {
  const key = `${limit} ${start}`
  const known = of.pages.get(key)
  if (known !== undefined || start >= Math.max(1, of.texts.length)) return known
  const end = Math.min(of.texts.length, start + limit)
  const metadata = {
    resourceVersion: String(version),
    ...(end < of.texts.length && { continue: String(end), remainingItemCount: of.texts.length - end }),
  }
  const head = `{"kind":"${of.kind}List","apiVersion":"${of.apiVersion}","metadata":${JSON.stringify(metadata)},"items":[`
  const page = Buffer.from(`${head}${of.texts.slice(start, end).join()}]}`)
  of.pages.set(key, page)
  return page
}

function answer(request: IncomingMessage, response: ServerResponse): void {
  if (marks.firstMs === 0) marks.firstMs = nowMs()
  const { pathname, searchParams } = new URL(request.url!, 'https://api')
  const of = collections.get(pathname)
  if (of === undefined) {
    response.writeHead(404, { 'content-type': 'application/json' })
    response.end('{"kind":"Status","apiVersion":"v1","status":"Failure","reason":"NotFound","code":404}')
    return
  }
  if (searchParams.get('watch') !== null) return watch(of, Number(searchParams.get('resourceVersion')), response)
  const limit = Number(searchParams.get('limit') ?? of.texts.length)
  const page = pageOf(of, limit, Number(searchParams.get('continue') ?? 0))
  response.writeHead(page === undefined ? 410 : 200, { 'content-type': 'application/json' })
  response.end(page ?? '{"kind":"Status","apiVersion":"v1","status":"Failure","reason":"Expired","code":410}')
  marks.listedMs = nowMs()
}

function watch(of: Collection, since: number, response: ServerResponse): void {
  response.writeHead(200, { 'content-type': 'application/json' })
  response.flushHeaders()
  for (const event of of.events) if (event.version > since) response.write(event.line)
  of.watchers.add(response)
  const bookmarks = setInterval(
    () =>
      response.write(
        `{"type":"BOOKMARK","object":{"kind":"${of.kind}","apiVersion":"${of.apiVersion}","metadata":{"resourceVersion":"${version}"}}}\n`,
      ),
    BOOKMARK_MS,
  )
  response.on('close', () => {
    clearInterval(bookmarks)
    of.watchers.delete(response)
  })
}

/** @returns when the event was written to the socket, CLOCK_MONOTONIC in ms. */
function move(service: number): number {
  const of = collections.get(SLICES)!
  moved[service] = !moved[service]
  const text = sliceText(service, size, moved[service]!, ++version)
  const object = `{"kind":"${of.kind}","apiVersion":"${of.apiVersion}",${text.slice(1)}`
  const line = `{"type":"MODIFIED","object":${object}}\n`
  of.texts[service] = text
  of.pages.clear()
  of.events.push({ version, line })
  if (of.events.length > EVENTS_MAX) of.events.shift()
  const atMs = nowMs()
  for (const watcher of of.watchers) watcher.write(line)
  return atMs
}

async function churn({ seconds, perSecond, probers }: Churn): Promise<{ changes: number }> {
  const next = random(size.services)
  const socket = createSocket('udp4').unref()
  const touchedMs = new Map<number, number>()
  const rested = (): number => {
    for (;;) {
      const service = Math.floor(next() * size.services)
      if (nowMs() - (touchedMs.get(service) ?? -Infinity) > REST_MS) return service
    }
  }
  const probe = (prober: number, kind: Probe['kind'], service: number, sinceMs: number): void => {
    touchedMs.set(service, nowMs())
    const asked: Probe = { kind, clusterIp: clusterIpOf(service), moved: moved[service]!, sinceMs }
    socket.send(JSON.stringify(asked), probers[prober]!, '127.0.0.1')
  }
  const beganMs = nowMs()
  let changes = 0
  for (let dueMs = beganMs; dueMs < beganMs + seconds * 1000; dueMs += (2 * next() * 1000) / perSecond) {
    const early = dueMs - nowMs()
    if (early > 0) await pause(early)
    // In turn: a change that the first prober looks for, one and a look at another service, the same with the second.
    const turn = changes++ % 4
    const service = rested()
    touchedMs.set(service, nowMs())
    const atMs = move(service)
    if (turn % 2 === 0) probe(turn / 2, 'change', service, atMs)
    else probe((turn - 1) / 2, 'same', rested(), nowMs())
  }
  socket.close()
  return { changes }
}

serve({
  /** @returns the port on 127.0.0.1. */
  open: async (wanted: ChurnSize, pair: KeyPair, ca: string): Promise<number> => {
    size = wanted
    moved = Array<boolean>(size.services).fill(false)
    const each = (text: (service: number) => string) => Array.from({ length: size.services }, (_, i) => text(i))
    collections = new Map([
      [NODES, collection('Node', 'v1', nodeTexts())],
      [PODS, collection('Pod', 'v1', [])],
      [SERVICES, collection('Service', 'v1', each(serviceText))],
      [
        SLICES,
        collection(
          'EndpointSlice',
          'discovery.k8s.io/v1',
          each((service) => sliceText(service, size, false, service + 1)),
        ),
      ],
    ])
    for (const of of collections.values())
      for (let start = 0; start < of.texts.length; start += 500) pageOf(of, 500, start)
    const options = { cert: pair.certificatePem, key: pair.keyPem, ca, requestCert: true, rejectUnauthorized: true }
    server = createServer(options, answer).on('connection', (socket) => socket.setNoDelay(true))
    await new Promise<void>((resolve) => server!.listen(0, '127.0.0.1', resolve))
    return (server.address() as AddressInfo).port
  },
  marks: (): ApiMarks => {
    const found = marks
    marks = { firstMs: 0, listedMs: 0 }
    return found
  },
  churn,
})
