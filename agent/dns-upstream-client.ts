// Names of others are asked of the node's own resolvers, or of those that a stub domain names. Answers are kept in a cache;
// what was known is served for an hour when nobody answers (RFC 8767). A resolver that fails is checked until it answers.

import { readFileSync, statSync } from 'node:fs'
import { formatSocketAddress, type SocketAddress } from '../lib/address.ts'
import { pause } from '../lib/net/lifetime.ts'
import type { DnsQuery } from '../lib/wire/dns.ts'
import { queryFor } from '../lib/wire/dns-encode.ts'
import { adaptResponse, type ForeignResponse } from '../lib/wire/dns-foreign.ts'
import { CACHE_BOUNDS, DnsCache, isFailure, keyOf } from './dns-cache.ts'
import { exchange } from './dns-exchange-client.ts'
import { DnsHealth } from './dns-health.ts'
import { DNS_PORT, parseResolvConf, parseServer, stubFor, type DnsStub } from './resolv-conf.ts'

export type Upstream = {
  /** The answer for this client; undefined where nobody answers and nothing is remembered. */
  readonly resolve: (query: DnsQuery) => Promise<Buffer | undefined>
  readonly servers: () => readonly SocketAddress[]
  readonly counts: () => UpstreamCounts
}
/** Since the start, but for what is now in the cache. */
export type UpstreamCounts = {
  readonly asked: number
  readonly failed: number
  readonly cacheHits: number
  readonly staleAnswers: number
  readonly prefetches: number
  readonly cacheEntries: number
  readonly cacheBytes: number
}

export type UpstreamOptions = {
  /** `ADDRESS` or `ADDRESS:PORT`; empty: those of resolv.conf. */
  readonly servers: readonly string[]
  readonly stubs?: readonly DnsStub[]
  readonly resolvConf?: string
  /** Addresses that lead back to this agent. */
  readonly except: () => readonly string[]
  /** For how long what has ended may be served where nobody answers; 0 for never. */
  readonly staleSeconds?: number
}

const TIMEOUT_MS = 2_000
/** Where all are down, one is tried for this long. */
const DOWN_TIMEOUT_MS = 1_000
const TRIES = 2
/** Questions under way, each with a socket; more are not answered. */
const PENDING_MAX = 512
const CHECK_MS = 500
const CHECK_TIMEOUT_MS = 1_000
/** A client that waits for this long gets what was known (RFC 8767 §5). */
const STALE_AFTER_MS = 1_800
const RESOLV_CONF_CHECK_MS = 5_000

/** A question that any resolver answers in one way or another. */
const CHECK = queryFor('.', {
  id: 0,
  type: 'NS',
  class: 'IN',
  recursionDesired: true,
  checkingDisabled: false,
  edns: undefined,
})!

export function openUpstream(options: UpstreamOptions, signal: AbortSignal): Upstream {
  const cache = new DnsCache({ ...CACHE_BOUNDS, staleSeconds: options.staleSeconds ?? CACHE_BOUNDS.staleSeconds })
  const pending = new Map<string, Promise<ForeignResponse | undefined>>()
  const health = new DnsHealth()
  const configured = serverSource(options)
  const stubs = options.stubs ?? []
  const counts = { asked: 0, failed: 0, cacheHits: 0, staleAnswers: 0, prefetches: 0 }

  const serversFor = (name: string): readonly SocketAddress[] => stubFor(stubs, name)?.servers ?? configured()

  const ask = async (query: DnsQuery): Promise<ForeignResponse | undefined> => {
    const servers = serversFor(query.name)
    const order = health.order(servers, Math.random())
    let failure: ForeignResponse | undefined
    for (let i = 0; i < TRIES && order.length > 0 && !signal.aborted; i++) {
      const server = order[i % order.length]!
      const down = health.isDown(server)
      if (i > 0 && down) break
      const response = await exchange(server, query, down ? DOWN_TIMEOUT_MS : TIMEOUT_MS, signal)
      if (response !== undefined) {
        health.answered(server)
        if (!isFailure(response) || order.length === 1) return response
        // Another may know what this one refuses, as with glibc.
        failure ??= response
        continue
      }
      if (!signal.aborted && health.failed(server)) void check(server)
    }
    if (failure === undefined) counts.failed++
    return failure
  }

  /** Until it answers or is not configured any more. */
  const check = async (server: SocketAddress): Promise<void> => {
    const text = formatSocketAddress(server)
    const isKnown = () =>
      [...configured(), ...stubs.flatMap(({ servers }) => servers)].some((other) => formatSocketAddress(other) === text)
    for (;;) {
      await pause(CHECK_MS, signal)
      if (signal.aborted || !health.isSuspect(server)) return
      if (!isKnown() || (await exchange(server, CHECK, CHECK_TIMEOUT_MS, signal)) !== undefined)
        return health.answered(server)
      health.failed(server)
    }
  }

  /** One question for all who wait for the same; its answer is in the cache when it is there. */
  const askOnce = (query: DnsQuery): Promise<ForeignResponse | undefined> => {
    const key = keyOf(query)
    const known = pending.get(key)
    if (known !== undefined) return known
    if (pending.size >= PENDING_MAX) return Promise.resolve(undefined)
    counts.asked++
    const answer = ask(query)
      .then((response) => {
        if (response !== undefined) cache.store(query, response, performance.now())
        return response
      })
      .finally(() => pending.delete(key))
    pending.set(key, answer)
    return answer
  }

  return {
    servers: configured,
    counts: () => ({ ...counts, cacheEntries: cache.size, cacheBytes: cache.bytes }),
    resolve: async (query) => {
      const known = cache.fresh(query, performance.now())
      if (known !== undefined) {
        counts.cacheHits++
        if (known.refresh && !pending.has(keyOf(query))) {
          counts.prefetches++
          void askOnce(query)
        }
        return known.message
      }
      const stale = cache.stale(query, performance.now())
      const asked = askOnce(query)
      const isHopeless = stale !== undefined && serversFor(query.name).every((server) => health.isDown(server))
      const waiting = stale === undefined ? [] : [pause(isHopeless ? 0 : STALE_AFTER_MS, signal)]
      const response = (await Promise.race([asked, ...waiting])) as ForeignResponse | undefined
      if (stale !== undefined && (response === undefined || isFailure(response))) {
        counts.staleAnswers++
        return stale
      }
      return response && adaptResponse(response, query, (ttl) => ttl)
    },
  }
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
