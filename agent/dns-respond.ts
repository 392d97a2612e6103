// One DNS message in, its answer out: names of the cluster from the zone, at once; all others from upstream.

import {
  decodeQuery,
  headerOnly,
  MALFORMED,
  MESSAGE_BYTES_MAX,
  RCODES,
  rcodeOf,
  udpBytesFor,
  type DnsQuery,
  type DnsResponse,
  type Malformed,
  type Rcode,
} from '../lib/wire/dns.ts'
import { encodeResponse, queryFor } from '../lib/wire/dns-encode.ts'
import { answersOf, readResponse } from '../lib/wire/dns-foreign.ts'
import type { Log } from '../lib/log.ts'
import { answer, type DnsAnswer } from './dns.ts'
import type { Zone } from './dns-zone.ts'
import { DnsAnswers } from './dns-answers.ts'
import type { Upstream } from './dns-upstream-client.ts'

export type Responder = {
  /** The answer's bytes, at once where the cluster knows; undefined for what gets none. Never throws nor rejects. */
  readonly respond: (message: Buffer, overTcp: boolean, client: () => string) => Buffer | Promise<Buffer> | undefined
  readonly counts: () => DnsCounts
}
/** Since the start. */
export type DnsCounts = {
  readonly queries: number
  readonly answers: Readonly<Record<Rcode, number>>
  readonly malformed: Readonly<Record<Malformed, number>>
}
export type ResponderOptions = {
  /** The same object for as long as nothing changes. */
  readonly zone: () => Zone
  readonly upstream: Pick<Upstream, 'resolve'>
  readonly random: () => number
  readonly log: Log
}

const NO_RECORDS = { answers: [], authorities: [], additionals: [] } as const
const failed: DnsResponse = { ...NO_RECORDS, authoritative: false, rcode: 'SERVFAIL' }

export function createResponder({ zone, upstream, random, log }: ResponderOptions): Responder {
  const answers = Object.fromEntries(RCODES.map((rcode) => [rcode, 0])) as Record<Rcode, number>
  const malformed = Object.fromEntries(MALFORMED.map((reason) => [reason, 0])) as Record<Malformed, number>
  const known = new DnsAnswers()
  let queries = 0
  let failures = 0

  const respond: Responder['respond'] = (message, overTcp, client) => {
    const now = zone()
    // A query that is in here was read before. What fits into a UDP answer is kept only, which TCP takes too.
    const ready = known.find(now, message, random)
    if (ready !== undefined) {
      queries++
      answers[rcodeOf(ready[3]! & 15)]++
      return ready
    }
    try {
      const received = decodeQuery(message)
      switch (received.kind) {
        case 'query':
          queries++
          return respondTo(now, received.query, overTcp)
        case 'opcode':
          queries++
          answers.NOTIMP++
          return headerOnly(message, 'NOTIMP')
        case 'malformed':
          if (malformed[received.reason]++ === 0)
            log.warn(
              { addr: client(), reason: received.reason },
              'a message to the DNS is malformed; more are counted only',
            )
          if (!received.answerable) return undefined
          answers.FORMERR++
          return headerOnly(message, 'FORMERR')
      }
    } catch (err) {
      return failure(message, err)
    }
  }

  /** What should not be: one bad name must not end the agent. */
  const failure = (message: Uint8Array, err: unknown): Buffer => {
    if (failures++ === 0) log.error({ err }, 'cannot answer a DNS query; more are counted as SERVFAIL only')
    answers.SERVFAIL++
    return headerOnly(message, 'SERVFAIL')
  }

  const respondTo = (now: Zone, query: DnsQuery, overTcp: boolean): Buffer | Promise<Buffer> => {
    const maxBytes = overTcp ? MESSAGE_BYTES_MAX : udpBytesFor(query)
    const refusal = refuse(query)
    if (refusal !== undefined) return finish(query, { ...NO_RECORDS, authoritative: false, rcode: refusal }, maxBytes)
    const found = answer(now, query.name, query.type, random, maxBytes)
    switch (found.kind) {
      case 'answer': {
        const response: DnsResponse = { ...found, authoritative: true }
        const encoded = finish(query, response, maxBytes)
        if (!overTcp) known.store(now, query, response, encoded)
        return encoded
      }
      case 'alias':
        return follow(query, found, maxBytes).catch((err: unknown) => failure(query.message, err))
      case 'forward':
        return forward(query, maxBytes).catch((err: unknown) => failure(query.message, err))
    }
  }

  const finish = (query: DnsQuery, response: DnsResponse, maxBytes: number): Buffer => {
    const encoded = encodeResponse(query, response, maxBytes)
    answers[response.rcode]++
    return encoded
  }

  const forward = async (query: DnsQuery, maxBytes: number): Promise<Buffer> => {
    const message = await upstream.resolve(query)
    if (message === undefined) return finish(query, failed, maxBytes)
    const rcode = rcodeOf(message[3]! & 15)
    if (message.length > maxBytes) return truncated(query, rcode)
    answers[rcode]++
    return message
  }

  /** What a client that cannot take the whole over UDP gets: nothing but the hint to ask over TCP. */
  const truncated = (query: DnsQuery, rcode: Rcode): Buffer => {
    const message = finish(query, { ...NO_RECORDS, authoritative: false, rcode }, MESSAGE_BYTES_MAX)
    message[2]! |= 0x02
    return message
  }

  /** The client of an alias gets the other zone's records with it, as from any resolver. */
  const follow = async (
    query: DnsQuery,
    { answers: aliases, target }: DnsAnswer & { readonly kind: 'alias' },
    maxBytes: number,
  ): Promise<Buffer> => {
    const inner = queryFor(target, { ...query, edns: undefined, recursionDesired: true })
    const message = inner && (await upstream.resolve(inner))
    const response = inner && message && readResponse(message, query.id, inner)
    return finish(
      query,
      {
        ...NO_RECORDS,
        rcode: response === undefined ? 'SERVFAIL' : rcodeOf(response.rcode),
        authoritative: true,
        answers: aliases,
        foreign: response === undefined ? [] : answersOf(response, inner!),
      },
      maxBytes,
    )
  }

  return { respond, counts: () => ({ queries, answers, malformed }) }
}

/** Transfers and their like are for nobody. */
const REFUSED_TYPES: ReadonlySet<string> = new Set(['AXFR', 'IXFR', 'TYPE253', 'TYPE254'])

function refuse({ class: kind, type, edns }: DnsQuery): Rcode | undefined {
  if (edns !== undefined && edns.version > 0) return 'BADVERS'
  return kind !== 'IN' || REFUSED_TYPES.has(type) ? 'REFUSED' : undefined
}
