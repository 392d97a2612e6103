// The programs of the socket load balancer. `connect` runs when a process of this node calls connect(): if it calls a
// frontend, the address becomes a target's, once, before there is a packet. `getpeername` answers with the address that was
// called. Whatever is not plainly right is left untouched: then the packets meet nft's rules, which hold all services.
//
// In connect: r6 is the context, r7 the frontend, r8 the time, r9 the word of its slots.

import {
  add,
  add32,
  call,
  exit,
  ja,
  jeq,
  jge,
  jgt,
  jne,
  jset,
  label,
  ldx,
  loadConstant,
  loadMap,
  mod32,
  mov,
  and,
  rsh,
  st,
  stx,
  sub,
  type Program,
  type Register,
  type Step,
} from '../lib/bpf/assembler.ts'
import type { Family } from '../lib/cidr.ts'
import {
  AFFINITY,
  AFFINITY_KEY,
  EXCLUDED_LEVELS,
  FLAG_CANARY,
  FLAG_NODE_ONLY,
  FRONTEND,
  LEASE,
  MEMBER,
  PEER,
  PLACE_BYTES,
  PLACE_PORT,
} from './socket-lb-records.ts'

/** struct bpf_sock_addr */
const CONTEXT = { address: { 4: 4, 6: 8 }, port: 24, protocol: 36 } as const
const IPPROTO_TCP = 6
const ECONNREFUSED = 111
/** ::ffff:0:0/96, as the third word of an address is read. */
const MAPPED = 0xffff0000

/** The stack: offsets from r10. What was called and the target lie together, as in the map of peers. */
const CALLED = -48
const TARGET = CALLED + PEER.target
const NUMBER = -56
const AFFINITY_AT = -64
const COOKIE = -72
const LEVELS = -80
const AFFINITY_KEY_AT = -96
const AFFINITY_VALUE = -128
const MEMBER_AT = -152

export type ProgramOptions = {
  /** The kernel lets programs choose the error of a call (bpf_set_retval); else calls without a target are left to nft. */
  readonly refuse: boolean
}

/** Symbols: the maps of socket-lb-records.ts, and the constant `node-namespace`, the cookie of the node's own. */
export const connectProgram = (family: Family, { refuse }: ProgramOptions): Program => [
  mov('r6', 'r1'),
  ldx('u32', 'r2', 'r6', CONTEXT.protocol),
  jne('r2', IPPROTO_TCP, 'untouched'),
  ...readAddress(family),
  ldx('u32', 'r2', 'r6', CONTEXT.port),
  stx('u32', 'r10', CALLED + PLACE_PORT, 'r2'),
  st('u32', 'r10', CALLED + PLACE_PORT + 4, 0),
  ...lookUp('services', CALLED),
  jeq('r0', 0, 'untouched'),
  ldx('u32', 'r1', 'r0', 0),
  stx('u32', 'r10', NUMBER, 'r1'),
  ...lookUp('frontends', NUMBER),
  jeq('r0', 0, 'untouched'),
  mov('r7', 'r0'),
  ...[0, 8, 16].flatMap((offset) => [
    ldx('u64', 'r1', 'r7', FRONTEND.place + offset),
    ldx('u64', 'r2', 'r10', CALLED + offset),
    jne('r1', 'r2', 'untouched'),
  ]),

  ldx('u32', 'r8', 'r7', FRONTEND.flags),
  jset('r8', FLAG_NODE_ONLY, 'node-only'),
  ja('lease'),
  label('node-only'),
  mov('r1', 'r6'),
  call('get_netns_cookie'),
  loadConstant('r1', 'node-namespace'),
  jne('r0', 'r1', 'untouched'),

  // The flag of the canary is the number of its lease.
  label('lease'),
  and('r8', FLAG_CANARY),
  // r10's NUMBER is still wanted by affinity.
  stx('u32', 'r10', COOKIE, 'r8'),
  ...lookUp('leases', COOKIE),
  jeq('r0', 0, 'untouched'),
  ldx('u64', 'r9', 'r0', LEASE.until),
  ldx('u64', 'r8', 'r0', LEASE.levels),
  stx('u64', 'r10', LEVELS, 'r8'),
  call('ktime_get_ns'),
  jge('r0', 'r9', 'untouched'),
  mov('r8', 'r0'),
  ldx('u64', 'r1', 'r10', LEVELS),
  jeq('r1', 0, 'serve'),
  ...excludedGroups(),

  label('serve'),
  ldx('u64', 'r9', 'r7', FRONTEND.slots),
  mov('r1', 'r9'),
  rsh('r1', 32),
  jeq('r1', 0, 'refuse'),
  ldx('u64', 'r1', 'r7', FRONTEND.affinity),
  jeq('r1', 0, 'choose'),
  ...targetOfLastCall(),

  label('choose'),
  call('get_prandom_u32'),
  mov('r1', 'r9'),
  rsh('r1', 32),
  mod32('r0', 'r1'),
  add32('r0', 'r9'),
  stx('u32', 'r10', COOKIE, 'r0'),
  ...lookUp('slots', COOKIE),
  jeq('r0', 0, 'untouched'),
  ...copy('r0', 0, 'r10', TARGET, PLACE_BYTES),
  ldx('u64', 'r1', 'r7', FRONTEND.affinity),
  jeq('r1', 0, 'rewrite'),
  ...copy('r10', TARGET, 'r10', AFFINITY_VALUE, PLACE_BYTES),
  stx('u64', 'r10', AFFINITY_VALUE + AFFINITY.lastUseNs, 'r8'),
  ...update('affinity', AFFINITY_KEY_AT, AFFINITY_VALUE),

  label('rewrite'),
  mov('r1', 'r6'),
  call('get_socket_cookie'),
  stx('u64', 'r10', COOKIE, 'r0'),
  ...update('peers', COOKIE, CALLED),
  ...writeContext(family, 'r10', TARGET),

  label('untouched'),
  mov('r0', 1),
  exit(),

  label('refuse'),
  ...(refuse ? [mov('r1', -ECONNREFUSED), call('set_retval'), mov('r0', 0)] : [mov('r0', 1)]),
  exit(),
]

export const getpeernameProgram = (family: Family): Program => [
  mov('r6', 'r1'),
  call('get_socket_cookie'),
  stx('u64', 'r10', COOKIE, 'r0'),
  ...lookUp('peers', COOKIE),
  jeq('r0', 0, 'untouched'),
  // The socket may have been connected to something else since.
  ...words(family).flatMap((i) => [
    ldx('u32', 'r1', 'r6', contextOf(family, i)),
    ldx('u32', 'r2', 'r0', PEER.target + 4 * i),
    jne('r1', 'r2', 'untouched'),
  ]),
  ldx('u32', 'r1', 'r6', CONTEXT.port),
  ldx('u32', 'r2', 'r0', PEER.target + PLACE_PORT),
  jne('r1', 'r2', 'untouched'),
  ...writeContext(family, 'r0', PEER.called),
  label('untouched'),
  mov('r0', 1),
  exit(),
]

/** The words of an address that the context has: an IPv4 address is the last of four. */
const words = (family: Family): readonly number[] => (family === 4 ? [3] : [0, 1, 2, 3])
const contextOf = (family: Family, i: number) => CONTEXT.address[family] + (family === 4 ? 0 : 4 * i)

function readAddress(family: Family): Program {
  const mapped = [st('u64', 'r10', CALLED, 0), st('u32', 'r10', CALLED + 8, MAPPED)]
  return [
    ...(family === 4 ? mapped : []),
    ...words(family).flatMap((i) => [
      ldx('u32', 'r2', 'r6', contextOf(family, i)),
      stx('u32', 'r10', CALLED + 4 * i, 'r2'),
    ]),
  ]
}

/** A frontend and its targets are of one family, mapped or not, so the context has room for the address. */
const writeContext = (family: Family, base: Register, offset: number): Program => [
  ...words(family).flatMap((i) => [
    ldx('u32', 'r1', base, offset + 4 * i),
    stx('u32', 'r6', contextOf(family, i), 'r1'),
  ]),
  ldx('u32', 'r1', base, offset + PLACE_PORT),
  stx('u32', 'r6', CONTEXT.port, 'r1'),
]

/** Left alone if a group that the process is in, at any level that any excluded group has, is excluded. */
function excludedGroups(): Program {
  return Array.from({ length: EXCLUDED_LEVELS }, (_, i) => i + 1).flatMap((level) => [
    ldx('u64', 'r1', 'r10', LEVELS),
    jset('r1', 1 << level, `level-${level}`),
    ja(`below-${level}`),
    label(`level-${level}`),
    mov('r1', level),
    call('get_current_ancestor_cgroup_id'),
    stx('u64', 'r10', COOKIE, 'r0'),
    ...lookUp('excluded', COOKIE),
    jne('r0', 0, 'untouched'),
    label(`below-${level}`),
  ])
}

/** Goes on at `choose` unless the last call was so short ago as the service says, and its target is still one. */
function targetOfLastCall(): readonly Step[] {
  return [
    stx('u64', 'r10', AFFINITY_KEY_AT + AFFINITY_KEY.service, 'r1'),
    mov('r1', 'r6'),
    call('get_netns_cookie'),
    stx('u64', 'r10', AFFINITY_KEY_AT + AFFINITY_KEY.namespace, 'r0'),
    ...lookUp('affinity', AFFINITY_KEY_AT),
    jeq('r0', 0, 'choose'),
    ldx('u64', 'r1', 'r0', AFFINITY.lastUseNs),
    mov('r2', 'r8'),
    sub('r2', 'r1'),
    ldx('u64', 'r1', 'r7', FRONTEND.affinityNs),
    jgt('r2', 'r1', 'choose'),
    stx('u64', 'r10', AFFINITY_AT, 'r0'),
    ...copy('r0', AFFINITY.target, 'r10', TARGET, PLACE_BYTES),
    ...copy('r10', TARGET, 'r10', MEMBER_AT, PLACE_BYTES),
    ldx('u32', 'r1', 'r10', NUMBER),
    stx('u32', 'r10', MEMBER_AT + MEMBER.frontend, 'r1'),
    ...lookUp('members', MEMBER_AT),
    jeq('r0', 0, 'choose'),
    ldx('u64', 'r1', 'r10', AFFINITY_AT),
    stx('u64', 'r1', AFFINITY.lastUseNs, 'r8'),
    ja('rewrite'),
  ]
}

/** Into r0: where the value is, or 0. */
const lookUp = (map: string, key: number): Program => [
  loadMap('r1', map),
  mov('r2', 'r10'),
  add('r2', key),
  call('map_lookup_elem'),
]

const update = (map: string, key: number, value: number): Program => [
  loadMap('r1', map),
  mov('r2', 'r10'),
  add('r2', key),
  mov('r3', 'r10'),
  add('r3', value),
  mov('r4', 0),
  call('map_update_elem'),
]

/** By way of r1, eight bytes at a time. */
const copy = (from: Register, fromOffset: number, to: Register, toOffset: number, bytes: number): Program =>
  Array.from({ length: bytes / 8 }, (_, i) => i * 8).flatMap((offset) => [
    ldx('u64', 'r1', from, fromOffset + offset),
    stx('u64', to, toOffset + offset, 'r1'),
  ])
