// A table of nftables with sets, maps, base chains and their rules, as messages of a batch (lib/net/nft-batch.ts): what belongs to
// a socket of this process, and ends with it, nft cannot make for us.
//
//   NEWTABLE name, FLAGS u32                            NEWCHAIN table, name, HOOK { number u32, priority i32 }, type
//   NEWSET   table, name, FLAGS, types and lengths, ID  NEWRULE  table, chain, EXPRESSIONS { ELEM { name, DATA { … } }, … }
//
// Registers are of 4 bytes each; a key of several fields lies in registers that follow each other.

import type { Family } from '../cidr.ts'
import { attribute, NESTED, NFTABLES, textAttribute } from './netfilter.ts'
import type { NftMessage } from './nft-batch.ts'

export type NftTable = {
  readonly family: Family
  readonly name: string
  /** It goes with the socket that makes it, and nobody else can change it: kernel 5.12. */
  readonly owned: boolean
  readonly sets: readonly NftSet[]
  readonly chains: readonly NftChain[]
}
/** Fields are padded to 4 bytes each; elements may lapse. */
export type NftSet = {
  readonly name: string
  readonly key: readonly Field[]
  /** Of a map. */
  readonly value?: readonly Field[]
}
export type NftChain = {
  readonly name: string
  readonly type: 'filter' | 'nat'
  readonly hook: keyof typeof HOOKS
  readonly priority: number
  readonly rules: readonly NftRule[]
}
type Side = 'source' | 'destination'
/** Of packets whose `address . protocol . port` the set or map has as a key. */
export type NftRule =
  /**
   * The flow is tracked apart from those of other zones; before it is tracked at all (priority below -200), where every
   * packet comes by: those of other ports are soon done with.
   */
  | { readonly kind: 'zone'; readonly of: Side; readonly port: number; readonly set: string; readonly zone: number }
  /** They go to the `address . port` that the map has for their destination; in a chain of nat. */
  | { readonly kind: 'translate'; readonly map: string }
export type Field = 'address' | 'protocol' | 'port'
/** Attributes of one. */
type Expression = Buffer

const MESSAGE = {
  newTable: NFTABLES,
  deleteTable: NFTABLES | 2,
  newChain: NFTABLES | 3,
  newRule: NFTABLES | 6,
  newSet: NFTABLES | 9,
}
const TABLE = { name: 1, flags: 2 }
const OWNER = 2
const SET = { table: 1, name: 2, flags: 3, keyType: 4, keyBytes: 5, valueType: 6, valueBytes: 7, id: 10 }
const SET_FLAGS = { map: 8, timeout: 16 }
const CHAIN = { table: 1, name: 3, hook: 4, type: 7 }
const HOOK = { number: 1, priority: 2 }
const HOOKS = { prerouting: 0, output: 3 } as const
const RULE = { table: 1, chain: 2, expressions: 4 }
const LIST_ELEMENT = 1
const EXPRESSION = { name: 1, data: 2 }

/** By which nft knows how to print a field; of several, 6 bits each. */
const FIELD_TYPES: Readonly<Record<Family, Readonly<Record<Field, number>>>> = {
  4: { address: 7, protocol: 12, port: 13 },
  6: { address: 8, protocol: 12, port: 13 },
}
const FIELD_TYPE_BITS = 6

/** In place of a table of that name, unless it is somebody else's own. */
export function replaceTable({ family, name, owned, sets, chains }: NftTable): readonly NftMessage[] {
  const named = (type: number, ...more: readonly Buffer[]): NftMessage => ({
    kind: 'message',
    ...{ type, family, creates: type !== MESSAGE.deleteTable },
    body: Buffer.concat([textAttribute(TABLE.name, name), ...more]),
  })
  return [
    named(MESSAGE.newTable),
    named(MESSAGE.deleteTable),
    named(MESSAGE.newTable, ...(owned ? [number(TABLE.flags, OWNER)] : [])),
    ...sets.map(({ name, key, value }, i) =>
      named(
        MESSAGE.newSet,
        textAttribute(SET.name, name),
        number(SET.flags, SET_FLAGS.timeout | (value === undefined ? 0 : SET_FLAGS.map)),
        number(SET.keyType, typeOf(key, family)),
        number(SET.keyBytes, bytesOf(key, family)),
        ...(value === undefined
          ? []
          : [number(SET.valueType, typeOf(value, family)), number(SET.valueBytes, bytesOf(value, family))]),
        number(SET.id, i + 1),
      ),
    ),
    ...chains.flatMap((chain) => [
      named(
        MESSAGE.newChain,
        textAttribute(CHAIN.name, chain.name),
        attribute(CHAIN.hook | NESTED, number(HOOK.number, HOOKS[chain.hook]), number(HOOK.priority, chain.priority)),
        textAttribute(CHAIN.type, chain.type),
      ),
      ...chain.rules.map((rule) =>
        named(
          MESSAGE.newRule,
          textAttribute(RULE.chain, chain.name),
          attribute(
            RULE.expressions | NESTED,
            ...expressionsOf(rule, family).map((each) => attribute(LIST_ELEMENT | NESTED, each)),
          ),
        ),
      ),
    ]),
  ]
}

const fieldBytes = (field: Field, family: Family): number => (field === 'address' && family === 6 ? 16 : 4)
const bytesOf = (fields: readonly Field[], family: Family): number =>
  fields.reduce((sum, field) => sum + fieldBytes(field, family), 0)
const typeOf = (fields: readonly Field[], family: Family): number =>
  fields.reduce((type, field) => (type << FIELD_TYPE_BITS) | FIELD_TYPES[family][field], 0)

// === expressions ===

const FIRST_REGISTER = 8
const PAYLOAD = { register: 1, base: 2, offset: 3, length: 4 }
const BASE = { network: 1, transport: 2 }
const ADDRESS_OFFSETS = { 4: { source: 12, destination: 16 }, 6: { source: 8, destination: 24 } } as const
const PORT_OFFSETS = { source: 0, destination: 2 } as const
const META = { register: 1, key: 2 }
const META_PROTOCOL = 16
const LOOKUP = { set: 1, key: 2, value: 3 }
const CMP = { register: 1, operation: 2, data: 3 }
const CMP_EQUAL = 0
const IMMEDIATE = { register: 1, data: 2 }
const VALUE = 1
const CT = { key: 2, register: 4 }
const CT_ZONE = 17
const NAT = { type: 1, family: 2, address: 3, port: 5 }
const NAT_DESTINATION = 1
const NFPROTO = { 4: 2, 6: 10 } as const

function expressionsOf(rule: NftRule, family: Family): readonly Expression[] {
  const lookup = (set: string, ...more: readonly Buffer[]): Expression =>
    expression('lookup', textAttribute(LOOKUP.set, set), number(LOOKUP.key, FIRST_REGISTER), ...more)
  switch (rule.kind) {
    case 'zone':
      return [...isPort(rule.of, rule.port), ...loadKey(family, rule.of), lookup(rule.set), ...setZone(rule.zone)]
    case 'translate':
      return [
        ...loadKey(family, 'destination'),
        lookup(rule.map, number(LOOKUP.value, FIRST_REGISTER)),
        expression(
          'nat',
          number(NAT.type, NAT_DESTINATION),
          number(NAT.family, NFPROTO[family]),
          number(NAT.address, FIRST_REGISTER),
          number(NAT.port, behindAddress(family)),
        ),
      ]
  }
}

function isPort(side: Side, port: number): readonly Expression[] {
  const value = Buffer.alloc(2)
  value.writeUInt16BE(port)
  return [
    load(FIRST_REGISTER, BASE.transport, PORT_OFFSETS[side], 2),
    expression(
      'cmp',
      number(CMP.register, FIRST_REGISTER),
      number(CMP.operation, CMP_EQUAL),
      attribute(CMP.data | NESTED, attribute(VALUE, value)),
    ),
  ]
}

function setZone(zone: number): readonly Expression[] {
  // In the byte order of the host.
  const value = Buffer.alloc(2)
  value.writeUInt16LE(zone)
  return [
    expression(
      'immediate',
      number(IMMEDIATE.register, FIRST_REGISTER),
      attribute(IMMEDIATE.data | NESTED, attribute(VALUE, value)),
    ),
    expression('ct', number(CT.key, CT_ZONE), number(CT.register, FIRST_REGISTER)),
  ]
}

function loadKey(family: Family, side: Side): readonly Expression[] {
  const protocol = behindAddress(family)
  return [
    load(FIRST_REGISTER, BASE.network, ADDRESS_OFFSETS[family][side], fieldBytes('address', family)),
    expression('meta', number(META.register, protocol), number(META.key, META_PROTOCOL)),
    load(protocol + 1, BASE.transport, PORT_OFFSETS[side], 2),
  ]
}

/** From a packet's headers. */
const load = (register: number, base: number, offset: number, length: number): Expression =>
  expression(
    'payload',
    number(PAYLOAD.register, register),
    number(PAYLOAD.base, base),
    number(PAYLOAD.offset, offset),
    number(PAYLOAD.length, length),
  )

const behindAddress = (family: Family): number => FIRST_REGISTER + fieldBytes('address', family) / 4

const expression = (name: string, ...data: readonly Buffer[]): Expression =>
  Buffer.concat([textAttribute(EXPRESSION.name, name), attribute(EXPRESSION.data | NESTED, ...data)])

function number(type: number, value: number): Buffer {
  const bytes = Buffer.alloc(4)
  bytes.writeInt32BE(value)
  return attribute(type, bytes)
}
