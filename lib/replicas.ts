// The list of the relay's replicas, as an operator writes it and as relays tell it: each by the URLs that lead to it.
//
//   https://relay-1.example,https://203.0.113.12:443+https://[2001:db8::12]:443      two, the second with two addresses

import { list, url } from './config.ts'

/** URLs `https://HOST:PORT` of one replica, tried in turn. The first is its name, the same for all who know the list. */
export type Replica = readonly [string, ...string[]]

const MAX_REPLICAS = 64
const MAX_URLS = 8
/** It goes to agents in a greeting, which has 16 KiB. */
const MAX_TEXT = 8_192

export const nameOf = ([first]: Replica): string => first

/** @throws Error saying what is wrong. */
export function parseReplicas(text: string): readonly Replica[] {
  const replicas = list((item) => item.split('+').map(relayUrl) as unknown as Replica)(text)
  const names = replicas.flat()
  const twice = names.find((name, index) => names.indexOf(name) !== index)
  if (twice !== undefined) throw new Error(`names ${twice} twice`)
  if (replicas.length > MAX_REPLICAS) throw new Error(`names more than ${MAX_REPLICAS} replicas`)
  if (replicas.some((urls) => urls.length > MAX_URLS))
    throw new Error(`names more than ${MAX_URLS} URLs of one replica`)
  if (text.length > MAX_TEXT) throw new Error(`is longer than ${MAX_TEXT} characters`)
  return replicas
}

/** @param value as JSON has it. @returns undefined for anything else than a list of one replica or more. */
export function readReplicas(value: unknown): readonly Replica[] | undefined {
  if (!Array.isArray(value) || value.length === 0 || value.length > MAX_REPLICAS) return undefined
  const isReplica = (urls: unknown): boolean =>
    Array.isArray(urls) && urls.length > 0 && urls.length <= MAX_URLS && urls.every(isRelayUrl)
  return value.every(isReplica) ? (value as readonly Replica[]) : undefined
}

const isRelayUrl = (value: unknown): boolean => {
  try {
    return typeof value === 'string' && relayUrl(value) === value
  } catch {
    return false
  }
}

/** With its port, which URL leaves out where it is 443. */
function relayUrl(value: string): string {
  const parsed = url('https')(value.trim())
  if (parsed.pathname !== '/' || parsed.search !== '' || parsed.username !== '')
    throw new Error(`${value} is more than https://HOST:PORT`)
  return parsed.port === '' ? `${parsed.origin}:443` : parsed.origin
}
