// What the core of the lab does for the matrix, by an nft table of its own: it counts packets by where they come from,
// where they go and how long they are, loses some, and cuts pairs of sites. The kernel counts every packet that passes,
// so this is a capture without its cost: a pair's packets have a length of their own.

import { execAt, placeOf } from './enter.ts'
import { CORE } from './names.ts'
import type { Topology } from './topology.ts'

/** Packets of UDP that went one way, by length of the UDP header and payload. */
export type Passage = { readonly from: string; readonly to: string; readonly length: number; readonly packets: number }

/** UDP header; WireGuard's header and tag. */
const UDP_BYTES = 8
const WIREGUARD_BYTES = 16 + 16
/** WireGuard pads what is inside to multiples of this. */
const PADDING = 16
const FIRST_INNER = 256
/** Lengths that nothing else has: under full-size echoes, over probes, handshakes and small echoes. */
export const SLOTS_MAX = 16
const INNER_HEADERS = { 4: 20 + 8, 6: 40 + 8 } as const

/** @returns the payload that makes a packet whose length in the core is `lengthOf(slot)`. */
export const payloadOf = (slot: number, family: 4 | 6): number => FIRST_INNER + PADDING * slot - INNER_HEADERS[family]
export const lengthOf = (slot: number): number => FIRST_INNER + PADDING * slot + WIREGUARD_BYTES + UDP_BYTES

const FAMILIES = [
  { family: 4, word: 'ip' },
  { family: 6, word: 'ip6' },
] as const

export function matrixRules(): string {
  const lengths = `udp length ${lengthOf(0)}-${lengthOf(SLOTS_MAX - 1)}`
  return `table inet matrix
delete table inet matrix
table inet matrix {
${FAMILIES.map(
  ({
    word,
  }) => `  set seen_${word} { typeof ${word} saddr . ${word} daddr . udp length; flags dynamic; size 65535; counter; }
  set cut_${word} { typeof ${word} saddr . ${word} daddr; }
`,
).join('')}  chain loss {
  }
  chain forward {
    type filter hook forward priority filter + 10;
${FAMILIES.map(({ word }) => `    meta l4proto udp ${word} saddr . ${word} daddr @cut_${word} drop\n`).join('')}    meta l4proto udp jump loss
${FAMILIES.map(({ word }) => `    ${lengths} update @seen_${word} { ${word} saddr . ${word} daddr . udp length }\n`).join('')}  }
}
`
}

/** @param percent of all UDP packets. */
export const lossRules = (percent: number): string =>
  `flush chain inet matrix loss\n${percent === 0 ? '' : `add rule inet matrix loss numgen random mod 100 < ${percent} drop\n`}`

export const forgetRules = (): string =>
  FAMILIES.map(({ word }) => `flush set inet matrix seen_${word}\nflush set inet matrix cut_${word}\n`).join('')

/** @param a addresses of one site on the Internet. */
export function cutRules(action: 'add' | 'delete', a: readonly string[], b: readonly string[]): string {
  const ways = a.flatMap((left) =>
    b.filter((right) => isV6(right) === isV6(left)).flatMap((right) => [`${left} . ${right}`, `${right} . ${left}`]),
  )
  return ways.map((way) => `${action} element inet matrix cut_${isV6(way) ? 'ip6' : 'ip'} { ${way} }\n`).join('')
}
const isV6 = (text: string): boolean => text.includes(':')

export async function coreNft(topology: Topology, rules: string): Promise<void> {
  const { code, stderr } = await execAt(topology.id, placeOf(topology, CORE), ['nft', '-f', '-'], { input: rules })
  if (code !== 0) throw new Error(`the core refuses the rules of the matrix: ${stderr.trim()}`)
}

/** Everything that was counted since it was last forgotten. */
export async function readPassages(topology: Topology): Promise<readonly Passage[]> {
  const command = ['nft', '-j', 'list', 'table', 'inet', 'matrix']
  const { code, stdout, stderr } = await execAt(topology.id, placeOf(topology, CORE), command)
  if (code !== 0) throw new Error(`what the core has counted cannot be read: ${stderr.trim()}`)
  return passagesOf(stdout)
}

/** From nft's JSON. */
export function passagesOf(json: string): readonly Passage[] {
  const { nftables } = JSON.parse(json) as {
    nftables: readonly { set?: { name: string; elem?: readonly Element[] } }[]
  }
  return nftables.flatMap(({ set }) =>
    (set?.name.startsWith('seen') ? (set.elem ?? []) : []).map(({ elem: { val, counter } }) => {
      const [from, to, length] = val.concat
      return { from, to, length, packets: counter.packets }
    }),
  )
}
type Element = {
  readonly elem: {
    readonly val: { readonly concat: readonly [string, string, number] }
    readonly counter: { readonly packets: number }
  }
}
