// What `fulmar doctor` makes of what it finds on a node: each finding with why it matters and what to do. Pure; nothing is
// looked at here.

import { DEVICE_MTU, LEAST_MTU } from './owned.ts'
import type { Rule } from './routes.ts'
import { countText, durationText, LINE_WIDTH, millisecondsText, paragraph } from './text-table.ts'

export type Diagnosis = {
  readonly name: string
  /** `note`: it works, and less well than it might. */
  readonly verdict: 'fine' | 'note' | 'wrong'
  /** What is there. */
  readonly found: string
  /** Why it matters. */
  readonly why: string
  /** What to do; absent where it is fine. */
  readonly remedy?: string
}

/** Of nftables and of BPF links, by `uname -r`. */
export function kernelDiagnosis(release: string): Diagnosis {
  const [major = 0, minor = 0] = release.split('.').map((part) => Number.parseInt(part, 10))
  const isEnough = major > 5 || (major === 5 && minor >= 13)
  return {
    name: 'kernel',
    verdict: isEnough ? 'fine' : 'wrong',
    found: release,
    why: 'services, NAT and the port that WireGuard and STUN share are nft rules of Linux 5.13 or later',
    ...(!isEnough && { remedy: 'use a kernel of 5.13 or later' }),
  }
}

export type DeviceFilter = { readonly name: string; readonly filter: number }

/** @param all net.ipv4.conf.all.rp_filter. @param own devices of ours. The greater of the two counts for a device. */
export function filterDiagnosis(all: number, own: readonly DeviceFilter[]): Diagnosis {
  const strict = own.filter(({ filter }) => Math.max(all, filter) === 1).map(({ name }) => name)
  const base = {
    name: 'reverse-path filter',
    why: 'the two sides of a path may use different devices for a while, and a strict filter drops what comes by the other',
  }
  if (strict.length === 0) {
    const devices =
      own.length === 0 ? 'no device of ours yet' : `loose or off for ${own.map(({ name }) => name).join(', ')}`
    return { ...base, verdict: 'fine', found: `${devices} (net.ipv4.conf.all.rp_filter=${all})` }
  }
  return {
    ...base,
    verdict: 'wrong',
    found: `strict for ${strict.join(', ')}`,
    remedy:
      'something sets it after the gateway has: look for rp_filter in /etc/sysctl.d and in what your CNI sets, and let it leave these devices at 2',
  }
}

type RuleBefore = Pick<Rule, 'priority' | 'table' | 'mark'>

/** OpenYurt's: packets that its iptables chain has marked leave by this table. */
const RAVEN = { table: 9027, mark: 0x40 }

/** @param rules all of this machine. @param ours the preference of our first. */
export function rulesDiagnosis(rules: readonly RuleBefore[], ours: number): Diagnosis {
  const base = {
    name: 'routing rules',
    why: 'packets between pools leave by the first rule that knows a way, and what comes before ours may take them',
  }
  // The kernel's own comes first for all.
  const before = rules.filter(({ priority }) => priority > 0 && priority < ours)
  const raven = before.find(({ table, mark }) => table === RAVEN.table && mark === RAVEN.mark)
  if (raven !== undefined)
    return {
      ...base,
      verdict: 'note',
      found: `rule ${raven.priority} is Raven’s and comes before ours: packets between pools go its way`,
      remedy: `let Raven carry them until paths are as you want them; then take its agent off, and here: ip rule del pref ${raven.priority} fwmark 0x${RAVEN.mark.toString(16)}; ip link del raven0`,
    }
  const told = [...new Set(before.map(({ priority, table }) => `${priority} (table ${table})`))]
  return { ...base, verdict: 'fine', found: told.length === 0 ? 'none before ours' : `before ours ${told.join(', ')}` }
}

export type DeviceMtu = { readonly name: string; readonly mtu: number }

/** What WireGuard adds to a packet that goes by IPv4, and by IPv6. */
const WIREGUARD_BYTES = { v4: 60, v6: 80 }

/** @param own WireGuard devices of ours. @param uplinks devices with a default route. */
export function mtuDiagnosis(own: readonly DeviceMtu[], uplinks: readonly DeviceMtu[]): Diagnosis {
  const base = {
    name: 'MTU',
    why: `packets between pools are as large as our devices let them be, and WireGuard adds ${WIREGUARD_BYTES.v4} bytes, over IPv6 ${WIREGUARD_BYTES.v6}`,
  }
  const textOf = (devices: readonly DeviceMtu[]) => devices.map(({ name, mtu }) => `${name} ${mtu}`).join(', ')
  const changed = own.filter(({ mtu }) => mtu !== DEVICE_MTU)
  if (changed.length > 0)
    return {
      ...base,
      verdict: 'wrong',
      found: `${textOf(changed)}, and must be ${DEVICE_MTU}`,
      remedy: `something else sets it: look for these devices in what your CNI and network manager set, and ip link set ${changed[0]!.name} mtu ${DEVICE_MTU}`,
    }
  const whole = DEVICE_MTU + WIREGUARD_BYTES.v4
  const narrow = uplinks.filter(({ mtu }) => mtu < whole)
  if (narrow.length === 0)
    return { ...base, verdict: 'fine', found: textOf([...own, ...uplinks]) || 'no device of ours yet' }
  const remedy = `raise the MTU of ${narrow[0]!.name} to ${whole} or more, over IPv6 ${DEVICE_MTU + WIREGUARD_BYTES.v6}, if its network carries that`
  const least = LEAST_MTU + WIREGUARD_BYTES.v4
  if (narrow.some(({ mtu }) => mtu < least))
    return {
      ...base,
      verdict: 'wrong',
      found: `${textOf(narrow)}: less than the ${least} that tunnels need, so that all goes by TCP over the relay`,
      remedy,
    }
  return { ...base, verdict: 'note', found: `${textOf(narrow)}: routes over it carry ${LEAST_MTU} at a time`, remedy }
}

export type CertificateFacts = {
  /** Whose it is, such as `this node` or `the relay`. */
  readonly name: string
  readonly subject: string | undefined
  /** The subject that it must have; undefined for any. */
  readonly wanted: string | undefined
  readonly fromMs: number
  readonly untilMs: number
  readonly matchesKey: boolean
  readonly matchesCa: boolean
}

const NOTE_LAST_PART = 0.1

const STATE_WRONG_BYTES = 1 << 20
const STATE_NOTE_BYTES = 16 << 20
const STATE_FILES = 32

/** @param free.files undefined where the file system knows no such bound. */
export function stateDiagnosis(
  folder: string,
  isWritable: boolean,
  free: { readonly bytes: number; readonly files: number | undefined },
): Diagnosis {
  const base = {
    name: `state folder ${folder}`,
    why: 'certificates are renewed into it, and a node without the cloud starts from what it holds',
  }
  if (!isWritable)
    return {
      ...base,
      verdict: 'wrong',
      found: 'cannot be written',
      remedy: 'mount it to be written (mount -o remount,rw), after a look at dmesg for errors of the disk',
    }
  const found =
    free.files !== undefined && free.files < STATE_FILES ? `${free.files} files free` : bytesText(free.bytes)
  const isFull = free.bytes < STATE_WRONG_BYTES || (free.files ?? Infinity) < STATE_FILES
  if (!isFull && free.bytes >= STATE_NOTE_BYTES) return { ...base, verdict: 'fine', found }
  const remedy = `free some space there (df -h ${folder}, df -i ${folder}), or name another folder by --state-dir`
  return { ...base, verdict: isFull ? 'wrong' : 'note', found, remedy }
}
const bytesText = (bytes: number): string => `${Math.floor(bytes / (1 << 20))} MiB free`

/** A certificate on this machine. @param remedy how a new one is had. */
export function certificateDiagnosis(facts: CertificateFacts, nowMs: number, remedy: string): Diagnosis {
  const { name, subject, wanted, fromMs, untilMs, matchesKey, matchesCa } = facts
  const day = (ms: number) => new Date(ms).toISOString().slice(0, 16).replace('T', ' ')
  const base = { name: `certificate of ${name}`, why: 'everything of the mesh knows a node by its certificate only' }
  const wrong = (found: string, what = remedy): Diagnosis => ({ ...base, verdict: 'wrong', found, remedy: what })
  if (!matchesKey) return wrong('it is not of the key that lies beside it')
  if (!matchesCa) return wrong('another CA issued it than the one that lies beside it')
  if (wanted !== undefined && subject !== wanted)
    return wrong(`it is of ${subject ?? 'nobody'}, and should be of ${wanted}`)
  if (nowMs < fromMs)
    return wrong(
      `it is valid from ${day(fromMs)} on, which this machine’s clock has not reached (${day(nowMs)})`,
      'set the clock',
    )
  if (nowMs > untilMs) return wrong(`it ended ${durationText(nowMs - untilMs)} ago (${day(untilMs)})`)
  const found = `${subject ?? 'without a name'}, until ${day(untilMs)}`
  const isLate = untilMs - nowMs < NOTE_LAST_PART * (untilMs - fromMs)
  if (isLate) return { ...base, verdict: 'note', found: `${found}, in ${durationText(untilMs - nowMs)}`, remedy }
  return { ...base, verdict: 'fine', found }
}

/** Clocks that differ less tell nothing: an answer gives its time in whole seconds. */
const CLOCK_NOTE_MS = 10_000
const CLOCK_WRONG_MS = 5 * 60_000

/** @param offsetMs the relay's clock less ours; undefined where no relay answered. */
export function clockDiagnosis(offsetMs: number | undefined, nowMs: number): Diagnosis {
  const base = { name: 'clock', why: 'certificates and tokens are valid from one time to another' }
  const here = new Date(nowMs).toISOString().slice(0, 19)
  if (offsetMs === undefined)
    return { ...base, verdict: 'note', found: `${here}Z here; no relay to compare with`, remedy: 'see the relay above' }
  const off = Math.abs(offsetMs)
  const found = `${here}Z here, ${durationText(off)} ${offsetMs > 0 ? 'behind' : 'ahead of'} the relay`
  if (off < CLOCK_NOTE_MS) return { ...base, verdict: 'fine', found }
  const remedy = 'set the clock, and keep it by NTP (timedatectl set-ntp true, or chrony)'
  return { ...base, verdict: off < CLOCK_WRONG_MS ? 'note' : 'wrong', found, remedy }
}

export type RelayAnswer =
  | { readonly kind: 'answers'; readonly url: string; readonly rttMs: number }
  | { readonly kind: 'fails'; readonly url: string; readonly code: string; readonly message: string }

export function relayDiagnosis(answer: RelayAnswer): Diagnosis {
  const base = {
    name: `relay ${answer.url}`,
    why: 'signalling, kubectl and the way of last resort for packets go there by TLS',
  }
  if (answer.kind === 'answers')
    return { ...base, verdict: 'fine', found: `answers in ${millisecondsText(answer.rttMs)}` }
  return { ...base, verdict: 'wrong', found: answer.message, remedy: relayRemedy(answer.code) }
}

function relayRemedy(code: string): string {
  switch (code) {
    case 'ECONNREFUSED':
      return 'nothing listens there: see whether fulmar relay runs and on which port (--listen)'
    case 'ENOTFOUND':
    case 'EAI_AGAIN':
      return 'the name has no address here: mend the DNS of this node, or let relays be known by address (--public)'
    case 'ETIMEDOUT':
    case 'ECONNRESET':
      return 'let TCP to this address and port pass, in this site’s firewall and in the cloud’s'
    case 'ENETUNREACH':
      return 'this node has no route there: see that its link is up and that it has a default route (ip link; ip route)'
    case 'EHOSTUNREACH':
      return 'the next router does not answer, or one on the way refuses: see this node’s link and routes (ip neigh; ip route), then the firewalls'
    case 'ERR_TLS_CERT_ALTNAME_INVALID':
      return 'the relay does not know itself by this name or address: give it to its --public'
    case 'CERT_HAS_EXPIRED':
    case 'CERT_NOT_YET_VALID':
      return 'compare the clocks of both machines; a relay renews its certificate by itself'
    case 'SELF_SIGNED_CERT_IN_CHAIN':
    case 'UNABLE_TO_VERIFY_LEAF_SIGNATURE':
    case 'UNABLE_TO_GET_ISSUER_CERT_LOCALLY':
    case 'DEPTH_ZERO_SELF_SIGNED_CERT':
    case 'CERT_SIGNATURE_FAILURE':
      return 'another CA answers than the one of this mesh: a proxy that opens TLS on the way, or a relay set up anew; if it was, join again'
    default:
      return 'see the log of the relay, and what is on the way to it'
  }
}

export type StunAnswer = {
  readonly server: string
  /** How the server sees this node; undefined where nothing came. */
  readonly mapped: string | undefined
  readonly rttMs: number
}

export function stunDiagnosis(answers: readonly StunAnswer[]): Diagnosis {
  const base = {
    name: 'UDP to the relay',
    why: 'direct tunnels are found by STUN; where UDP does not pass, all goes by TCP over the relay',
  }
  if (answers.length === 0)
    return {
      ...base,
      verdict: 'note',
      found: 'no STUN server is known to this node',
      remedy: 'give the relay --stun ADDRESS, and join again or give fulmar gateway --stun',
    }
  const heard = answers.filter(({ mapped }) => mapped !== undefined)
  const silent = answers.filter(({ mapped }) => mapped === undefined).map(({ server }) => server)
  const remedy = `let UDP from this node to ${silent.join(', ')} pass, and what answers it`
  if (heard.length === 0) return { ...base, verdict: 'note', found: `no answer from ${silent.join(', ')}`, remedy }
  const seen = `seen as ${[...new Set(heard.map(({ mapped }) => mapped!))].join(', ')}, in ${millisecondsText(heard[0]!.rttMs)}`
  if (silent.length === 0) return { ...base, verdict: 'fine', found: seen }
  return { ...base, verdict: 'note', found: `${seen}; no answer from ${silent.join(', ')}`, remedy }
}

/** @param problems what the objects of the cluster leave unclear, each with its remedy; undefined without an API. */
export function prefixesDiagnosis(pools: number, problems: readonly string[]): readonly Diagnosis[] {
  const base = { name: 'pod prefixes', why: 'a prefix that two pools claim is routed to one of them at most' }
  if (problems.length === 0) return [{ ...base, verdict: 'fine', found: `of ${countText(pools, 'pool')}, none twice` }]
  return problems.map((found) => ({ ...base, verdict: 'wrong', found, remedy: 'mend the objects that it names' }))
}

export type OwnAddress = { readonly device: string; readonly address: string }
export type Inside = OwnAddress & { readonly pool: string; readonly prefix: string }

export function addressesDiagnosis(inside: readonly Inside[]): readonly Diagnosis[] {
  const base = {
    name: 'addresses of this node',
    why: 'what another pool’s pods have is routed into the mesh, so that neighbours with such addresses are out of reach',
  }
  if (inside.length === 0) return [{ ...base, verdict: 'fine', found: 'none is in another pool’s pod prefixes' }]
  return inside.map(({ device, address, pool, prefix }) => ({
    ...base,
    verdict: 'wrong',
    found: `${address} on ${device} is in ${prefix} of pool ${pool}`,
    remedy: 'give the LAN or the pool another prefix',
  }))
}

/** Problems first, each with why and what to do; then a line for each thing that is fine. */
export function renderDoctor(diagnoses: readonly Diagnosis[], lineWidth = LINE_WIDTH): string {
  const of = (verdict: Diagnosis['verdict']) => diagnoses.filter((each) => each.verdict === verdict)
  const [wrong, notes, fine] = [of('wrong'), of('note'), of('fine')]
  const told = ({ verdict, name, found, why, remedy }: Diagnosis): string =>
    [
      paragraph(`${verdict.padEnd(6)} `, '       ', `${name}: ${found}`, lineWidth),
      paragraph('       why: ', '            ', why, lineWidth),
      remedy === undefined ? '' : paragraph('       do: ', '           ', remedy, lineWidth),
    ].join('')
  return [
    ...[...wrong, ...notes].map(told),
    ...fine.map(({ name, found }) => paragraph('fine   ', '       ', `${name}: ${found}`, lineWidth)),
    `${wrong.length} wrong, ${notes.length} to know, ${fine.length} fine\n`,
  ].join('')
}
