// What a NAT does, in RFC 4787's words and in those that people know.

import type { NatBehaviour } from './status.ts'

/** RFC 4787's behaviour by the names that people know. */
export function natName(nat: NatBehaviour): string {
  if (nat.udp === 'blocked') return 'UDP blocked'
  switch (nat.mapping) {
    case 'none':
      return nat.filtering === 'none' || nat.filtering === 'endpoint-independent' ? 'none' : `no NAT, ${firewall(nat)}`
    case 'endpoint-independent':
      return { ...CONES, unknown: 'cone, filtering unknown' }[nat.filtering]
    case 'address-dependent':
    case 'address-and-port-dependent':
      return 'symmetric'
    case 'unknown':
      return 'unknown'
  }
}

/**
 * `port restricted cone (mapping endpoint-independent, filtering address-and-port-dependent), seen at 198.18.1.2:61001, keeps
 * idle mappings 90 to 170 s, no hairpinning`.
 */
export function natText(nat: NatBehaviour): string {
  const { mapping, filtering, mapped } = nat
  const words = mapping === 'unknown' && filtering === 'unknown' ? '' : ` (mapping ${mapping}, filtering ${filtering})`
  const seen = mapped === undefined ? '' : `, seen at ${mapped}`
  return `${natName(nat)}${words}${seen}${lifetimeText(nat)}${hairpinText(nat)}`
}

function lifetimeText({ lifetimeMs, lifetimeBelowMs }: NatBehaviour): string {
  if (lifetimeMs === undefined) return ''
  const [least, below] = [lifetimeMs / 1000, (lifetimeBelowMs ?? 0) / 1000]
  if (below === 0) return `, keeps idle mappings ${least} s or longer`
  return least === 0 ? `, keeps idle mappings less than ${below} s` : `, keeps idle mappings ${least} to ${below} s`
}

const hairpinText = ({ hairpin }: NatBehaviour): string =>
  hairpin === undefined ? '' : hairpin ? ', hairpins' : ', no hairpinning'

const CONES = {
  none: 'full cone',
  'endpoint-independent': 'full cone',
  'address-dependent': 'restricted cone',
  'address-and-port-dependent': 'port restricted cone',
} as const

const firewall = ({ filtering }: NatBehaviour): string => (filtering === 'unknown' ? 'filtering unknown' : 'firewall')
