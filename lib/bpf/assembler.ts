// eBPF programs as text and bytes (RFC 9669; include/uapi/linux/bpf.h). Each mnemonic is named as the kernel names it and
// listed as the kernel's verifier prints it, so that a listing can be laid beside a verifier's log.
//
//   0        8    12   16            32                     64
//   │ opcode │dst │src │ offset      │ immediate            │   an instruction; a wide one has a second such word

export type Register = 'r0' | 'r1' | 'r2' | 'r3' | 'r4' | 'r5' | 'r6' | 'r7' | 'r8' | 'r9' | 'r10'
export type Size = 'u8' | 'u16' | 'u32' | 'u64'
type Operand = Register | number

type Word = {
  readonly code: number
  readonly dst: Register
  readonly src: Register
  readonly offset: number
  readonly immediate: number
}
export type Step = { readonly text: string } & (
  | { readonly kind: 'word'; readonly word: Word }
  | { readonly kind: 'jump'; readonly word: Word; readonly to: string }
  | { readonly kind: 'label'; readonly name: string }
  /** A value of 64 bits that is known when the program is loaded: a map's descriptor, or a constant. */
  | { readonly kind: 'wide'; readonly dst: Register; readonly map: string }
  | { readonly kind: 'wide'; readonly dst: Register; readonly constant: string }
)
export type Program = readonly Step[]

/** Values of what programs name and do not hold. */
export type Symbols = {
  /** File descriptors. */
  readonly maps: Readonly<Record<string, number>>
  readonly constants: Readonly<Record<string, bigint>>
}

/** Of enum bpf_func_id. */
const HELPERS = {
  map_lookup_elem: 1,
  map_update_elem: 2,
  ktime_get_ns: 5,
  get_prandom_u32: 7,
  get_socket_cookie: 46,
  get_netns_cookie: 122,
  get_current_ancestor_cgroup_id: 123,
  set_retval: 187,
} as const
export type Helper = keyof typeof HELPERS

const SIZES: Readonly<Record<Size, number>> = { u32: 0x00, u16: 0x08, u8: 0x10, u64: 0x18 }
const [LDX, ST, STX, ALU, JMP, ALU64] = [0x61, 0x62, 0x63, 0x04, 0x05, 0x07]
const FROM_REGISTER = 0x08
const LD_IMM64 = 0x18
const PSEUDO_MAP_FD = 1
const WORD_BYTES = 8

export const label = (name: string): Step => ({ kind: 'label', name, text: `${name}:` })

/** `*(size *)(base + offset)` into a register. */
export const ldx = (size: Size, dst: Register, base: Register, offset: number): Step =>
  word(`${dst} = ${memory(size, base, offset)}`, { code: LDX | SIZES[size], dst, src: base, offset })
export const stx = (size: Size, base: Register, offset: number, src: Register): Step =>
  word(`${memory(size, base, offset)} = ${src}`, { code: STX | SIZES[size], dst: base, src, offset })
/** A constant into memory. */
export const st = (size: Size, base: Register, offset: number, immediate: number): Step =>
  word(`${memory(size, base, offset)} = ${numberText(immediate)}`, {
    code: ST | SIZES[size],
    dst: base,
    offset,
    immediate,
  })

export const mov = (dst: Register, src: Operand): Step => alu(ALU64, 0xb0, dst, '=', src)
export const add = (dst: Register, src: Operand): Step => alu(ALU64, 0x00, dst, '+=', src)
export const sub = (dst: Register, src: Operand): Step => alu(ALU64, 0x10, dst, '-=', src)
export const and = (dst: Register, src: Operand): Step => alu(ALU64, 0x50, dst, '&=', src)
export const rsh = (dst: Register, src: Operand): Step => alu(ALU64, 0x70, dst, '>>=', src)
/** Of the lower halves; the upper half of `dst` becomes 0. */
export const add32 = (dst: Register, src: Operand): Step => alu(ALU, 0x00, dst, '+=', src)
export const mod32 = (dst: Register, src: Operand): Step => alu(ALU, 0x90, dst, '%=', src)

/** Jumps compare all 64 bits, unsigned. */
export const jeq = (dst: Register, src: Operand, to: string): Step => jump(0x10, dst, '==', src, to)
export const jne = (dst: Register, src: Operand, to: string): Step => jump(0x50, dst, '!=', src, to)
export const jgt = (dst: Register, src: Operand, to: string): Step => jump(0x20, dst, '>', src, to)
export const jge = (dst: Register, src: Operand, to: string): Step => jump(0x30, dst, '>=', src, to)
/** If any bit of `src` is set in `dst`. */
export const jset = (dst: Register, src: Operand, to: string): Step => jump(0x40, dst, '&', src, to)
export const ja = (to: string): Step => ({
  kind: 'jump',
  word: { ...EMPTY, code: JMP },
  to,
  text: `goto ${to}`,
})
/** Arguments in r1 to r5, the result in r0; r1 to r5 hold nothing afterwards. */
export const call = (helper: Helper): Step =>
  word(`call bpf_${helper}#${HELPERS[helper]}`, { code: JMP | 0x80, immediate: HELPERS[helper] })
export const exit = (): Step => word('exit', { code: JMP | 0x90 })

export const loadMap = (dst: Register, map: string): Step => ({ kind: 'wide', dst, map, text: `${dst} = map ${map}` })
export const loadConstant = (dst: Register, constant: string): Step => ({
  kind: 'wide',
  dst,
  constant,
  text: `${dst} = constant ${constant}`,
})

/** A line per instruction with its number, as verifier logs have it, and labels. */
export function listing(program: Program): string {
  const numbers = positionsOf(program)
  return program
    .map(({ kind, text }, i) => (kind === 'label' ? text : `${String(numbers[i]).padStart(4)}: ${text}`))
    .map((line) => `${line}\n`)
    .join('')
}

/** @throws Error for a label that is not there or there twice, a jump too far, and a symbol without a value. */
export function assemble(program: Program, { maps, constants }: Symbols): Buffer {
  const positions = positionsOf(program)
  const labels = new Map<string, number>()
  program.forEach((step, i) => {
    if (step.kind !== 'label') return
    if (labels.has(step.name)) throw new Error(`label ${step.name} is there twice`)
    labels.set(step.name, positions[i]!)
  })
  const words = program.flatMap((step, i): readonly Buffer[] => {
    switch (step.kind) {
      case 'label':
        return []
      case 'word':
        return [encode(step.word)]
      case 'jump': {
        const target = labels.get(step.to)
        if (target === undefined) throw new Error(`label ${step.to} is not there: ${step.text}`)
        return [encode({ ...step.word, offset: target - positions[i]! - 1 })]
      }
      case 'wide': {
        const isMap = 'map' in step
        const value = isMap ? BigInt(maps[step.map] ?? -1) : (constants[step.constant] ?? -1n)
        if (value < 0n) throw new Error(`there is no such value: ${step.text}`)
        const low = Number(BigInt.asIntN(32, value))
        const high = Number(BigInt.asIntN(32, value >> 32n))
        const first = { ...EMPTY, code: LD_IMM64, dst: step.dst, immediate: low }
        return [encode(first, isMap ? PSEUDO_MAP_FD : 0), encode({ ...EMPTY, immediate: high })]
      }
    }
  })
  return Buffer.concat(words)
}

/** The number of each step's first word; of a label, that of what follows. */
function positionsOf(program: Program): readonly number[] {
  let next = 0
  return program.map(({ kind }) => {
    const position = next
    next += kind === 'label' ? 0 : kind === 'wide' ? 2 : 1
    return position
  })
}

const EMPTY: Word = { code: 0, dst: 'r0', src: 'r0', offset: 0, immediate: 0 }

const word = (text: string, parts: Partial<Word>): Step => ({ kind: 'word', word: { ...EMPTY, ...parts }, text })

function alu(width: number, operation: number, dst: Register, sign: string, src: Operand): Step {
  const half = (operand: Operand) =>
    typeof operand === 'number' ? numberText(operand) : width === ALU ? operand.replace('r', 'w') : operand
  return word(`${half(dst)} ${sign} ${half(src)}`, { ...operandOf(width | operation, src), dst })
}

const jump = (operation: number, dst: Register, sign: string, src: Operand, to: string): Step => ({
  kind: 'jump',
  word: { ...EMPTY, ...operandOf(JMP | operation, src), dst },
  to,
  text: `if ${dst} ${sign} ${typeof src === 'number' ? numberText(src) : src} goto ${to}`,
})

const operandOf = (code: number, src: Operand): Partial<Word> =>
  typeof src === 'number' ? { code, immediate: src } : { code: code | FROM_REGISTER, src }

const memory = (size: Size, base: Register, offset: number) =>
  `*(${size} *)(${base} ${offset < 0 ? '-' : '+'} ${Math.abs(offset)})`
const numberText = (value: number) => (Math.abs(value) > 255 ? `0x${(value >>> 0).toString(16)}` : String(value))

/** @param source instead of a register: for words that use the field for something else. */
function encode({ code, dst, src, offset, immediate }: Word, source = numberOf(src)): Buffer {
  if (offset < -0x8000 || offset > 0x7fff) throw new Error(`an offset of ${offset} words is too far`)
  const bytes = Buffer.alloc(WORD_BYTES)
  bytes[0] = code
  bytes[1] = (source << 4) | numberOf(dst)
  bytes.writeInt16LE(offset, 2)
  bytes.writeInt32LE(immediate | 0, 4)
  return bytes
}

const numberOf = (register: Register) => Number(register.slice(1))
