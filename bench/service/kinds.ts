// The ways of a call to a service that are compared, and how each is known from what the kernel and the server saw of it.

export const KINDS = ['direct', 'bpf', 'nft', 'chains', 'again', 'pipe', 'haproxy', 'nginx', 'untracked'] as const
export type Kind = (typeof KINDS)[number]
/** What is compared with the two that are direct. */
export const COMPARED = ['bpf', 'nft', 'chains', 'pipe', 'haproxy', 'nginx', 'untracked'] as const
export type Compared = (typeof COMPARED)[number]
const PROXIES = ['pipe', 'haproxy', 'nginx'] as const
export type ProxyKind = (typeof PROXIES)[number]

export const TITLES: Readonly<Record<Compared, string>> = {
  bpf: 'BPF',
  nft: 'nft',
  chains: 'kube-proxy’s chains',
  pipe: 'Node pipe proxy',
  haproxy: 'HAProxy',
  nginx: 'nginx stream',
  untracked: 'direct, untracked',
}

/**
 * `straight`: to the endpoint's own address. `rewritten`: the node's kernel translates addresses. `copied`: the server has a
 * connection with somebody else. `untracked`: straight, on a node whose kernel does not follow connections.
 */
export type Way = 'straight' | 'rewritten' | 'copied' | 'untracked'
export const WAYS: Readonly<Record<Kind, Way>> = {
  direct: 'straight',
  again: 'straight',
  untracked: 'untracked',
  bpf: 'straight',
  nft: 'rewritten',
  chains: 'rewritten',
  pipe: 'copied',
  haproxy: 'copied',
  nginx: 'copied',
}

/**
 * @param own,seen the caller's `ADDRESS:PORT`, as it knows it and as the server does.
 * @param flows what `conntrack -L` shows of that port.
 */
export function wayOf(own: string, seen: string, flows: string): Way {
  if (own !== seen) return 'copied'
  const flow = flows
    .split('\n')
    .map(readFlow)
    .find((found) => found?.from === own)
  if (flow === undefined) return 'untracked'
  return flow.to === flow.answeredBy ? 'straight' : 'rewritten'
}

type Flow = { readonly from: string; readonly to: string; readonly answeredBy: string }

/** Two tuples a line: as it was called, and as answers come. */
function readFlow(line: string): Flow | undefined {
  const tuples = [...line.matchAll(/src=(\S+) dst=(\S+) sport=(\d+) dport=(\d+)/g)]
  const [called, answered] = tuples
  if (called === undefined || answered === undefined) return undefined
  return {
    from: `${called[1]}:${called[3]}`,
    to: `${called[2]}:${called[4]}`,
    answeredBy: `${answered[1]}:${answered[3]}`,
  }
}

/**
 * Who has a turn after whom, in a pass: over twice as many passes as there are kinds, each has each place and each other one
 * before it as often (a Williams design), since whoever comes after a heavy one finds colder caches.
 */
export function orderOf<T>(kinds: readonly T[], pass: number): readonly T[] {
  const count = kinds.length
  // 0, 1, −1, 2, −2, …
  const order = kinds.map((_, i) => {
    const step = i % 2 === 0 ? count - i / 2 : (i + 1) / 2
    return kinds[(step + pass) % count]!
  })
  return Math.floor(pass / count) % 2 === 0 ? order : order.reverse()
}
