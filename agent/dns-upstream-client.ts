// Names of others are asked of the node's own resolvers: over UDP from a port that is random for each question, over TCP
// where the answer does not fit. A resolver that does not answer is left aside and tried again by one question a second,
// so that everyone else hears at once that there is no answer.

import { randomInt } from 'node:crypto'
import { createSocket } from 'node:dgram'
import { readFileSync, statSync } from 'node:fs'
import { connect } from 'node:net'
import type { SocketAddress } from '../lib/address.ts'
import { adaptResponse, readResponse, withId, type DnsQuery, type ForeignResponse } from '../lib/wire/dns.ts'
import { firstMessage, framed } from '../lib/wire/dns-tcp.ts'
import { DnsCache, keyOf } from './dns-cache.ts'
import { DNS_PORT, parseResolvConf, parseServer } from './resolv-conf.ts'

export type Upstream = {
  /** The answer for this client; undefined where nobody answers and nothing is remembered. */
  readonly resolve: (query: DnsQuery, overTcp: boolean) => Promise<Buffer | undefined>
  readonly servers: () => readonly SocketAddress[]
}

export type UpstreamOptions = {
  /** `ADDRESS` or `ADDRESS:PORT`; empty: those of resolv.conf. */
  readonly servers: readonly string[]
  readonly resolvConf?: string
  /** Addresses that lead back to this agent. */
  readonly except: () => readonly string[]
}

const TIMEOUT_MS = 2_000
const TRIES = 2
/** Questions under way; more are not answered. */
const PENDING_MAX = 1_000
const FAILURES_MAX = 2
const RETRY_MS = 1_000
const RESOLV_CONF_CHECK_MS = 5_000

export function openUpstream(options: UpstreamOptions, signal: AbortSignal): Upstream {
  const cache = new DnsCache()
  const pending = new Map<string, Promise<ForeignResponse | undefined>>()
  const health = new Map<string, { failures: number; retryAtMs: number }>()
  const configured = serverSource(options)

  /** Those that answer, in order; else one that may be tried again now. */
  const usable = (): readonly SocketAddress[] => {
    const servers = configured()
    const nowMs = performance.now()
    const well = servers.filter(({ address }) => (health.get(address)?.failures ?? 0) < FAILURES_MAX)
    if (well.length > 0) return well
    const due = servers.find(({ address }) => health.get(address)!.retryAtMs <= nowMs)
    if (due === undefined) return []
    health.get(due.address)!.retryAtMs = nowMs + RETRY_MS
    return [due]
  }

  const ask = async (query: DnsQuery, overTcp: boolean): Promise<ForeignResponse | undefined> => {
    const servers = usable()
    for (let i = 0; i < TRIES && servers.length > 0 && !signal.aborted; i++) {
      const server = servers[i % servers.length]!
      const response = await (overTcp ? askTcp : askUdp)(server, query, signal)
      if (response !== undefined) {
        health.delete(server.address)
        return response
      }
      const failures = (health.get(server.address)?.failures ?? 0) + 1
      health.set(server.address, { failures, retryAtMs: performance.now() + RETRY_MS })
      if (servers.length === 1 && failures >= FAILURES_MAX) break
    }
    return undefined
  }

  return {
    servers: configured,
    resolve: async (query, overTcp) => {
      const known = cache.fresh(query, performance.now())
      if (known !== undefined) return known
      const key = `${keyOf(query)} ${overTcp ? 'tcp' : 'udp'}`
      let answer = pending.get(key)
      if (answer === undefined && pending.size < PENDING_MAX) {
        answer = ask(query, overTcp).finally(() => pending.delete(key))
        pending.set(key, answer)
      }
      const response = await answer
      if (response === undefined) return cache.stale(query, performance.now())
      cache.store(query, response, performance.now())
      return adaptResponse(response, query, (ttl) => ttl)
    },
  }
}

/** A connected socket: the kernel drops what others send, and tells of a closed port at once. */
function askUdp(server: SocketAddress, query: DnsQuery, signal: AbortSignal): Promise<ForeignResponse | undefined> {
  return new Promise((resolve) => {
    const id = randomInt(0x10000)
    const socket = createSocket(server.family === 4 ? 'udp4' : 'udp6')
    const finish = (response: ForeignResponse | undefined): void => {
      clearTimeout(timer)
      signal.removeEventListener('abort', give)
      socket
        .removeAllListeners()
        .on('error', () => undefined)
        .close()
      resolve(response)
    }
    const give = (): void => finish(undefined)
    const timer = setTimeout(give, TIMEOUT_MS)
    signal.addEventListener('abort', give)
    socket.on('error', give)
    socket.on('message', (bytes) => {
      const response = readResponse(bytes, id, query)
      if (response !== undefined) finish(response)
    })
    socket.on('connect', () => socket.send(withId(query.message, id)))
    socket.connect(server.port, server.address)
  })
}

function askTcp(server: SocketAddress, query: DnsQuery, signal: AbortSignal): Promise<ForeignResponse | undefined> {
  return new Promise((resolve) => {
    const id = randomInt(0x10000)
    const socket = connect(server.port, server.address)
    let received = Buffer.alloc(0)
    const finish = (response: ForeignResponse | undefined): void => {
      clearTimeout(timer)
      signal.removeEventListener('abort', give)
      socket.destroy()
      resolve(response)
    }
    const give = (): void => finish(undefined)
    const timer = setTimeout(give, TIMEOUT_MS)
    signal.addEventListener('abort', give)
    socket.on('error', give)
    socket.on('close', give)
    socket.on('data', (bytes: Buffer) => {
      received = Buffer.concat([received, bytes])
      // A frame is at most 65535 bytes, so is what is kept.
      const first = firstMessage(received)
      if (first !== undefined) finish(readResponse(first.message, id, query))
    })
    socket.on('connect', () => socket.write(framed(withId(query.message, id))))
  })
}

/** The resolvers to ask now; resolv.conf is read again when it changes. */
function serverSource({
  servers,
  resolvConf = '/etc/resolv.conf',
  except,
}: UpstreamOptions): () => readonly SocketAddress[] {
  const without = (found: readonly SocketAddress[]): readonly SocketAddress[] => {
    const own = new Set(except())
    return found.filter(({ address, port }) => port !== DNS_PORT || !own.has(address))
  }
  if (servers.length > 0) {
    const fixed = servers.flatMap((text) => parseServer(text) ?? [])
    return () => without(fixed)
  }
  let found: readonly SocketAddress[] = []
  let checkedAt = -Infinity
  let modifiedMs = -1
  return () => {
    if (performance.now() - checkedAt >= RESOLV_CONF_CHECK_MS) {
      checkedAt = performance.now()
      try {
        const { mtimeMs } = statSync(resolvConf)
        if (mtimeMs !== modifiedMs) found = parseResolvConf(readFileSync(resolvConf, 'utf8'))
        modifiedMs = mtimeMs
      } catch {
        // Without a resolv.conf there are no upstreams; it is looked for again.
        found = []
        modifiedMs = -1
      }
    }
    return without(found)
  }
}
