import t from 'tap'
import {
  add32,
  assemble,
  call,
  exit,
  ja,
  jeq,
  jset,
  label,
  ldx,
  listing,
  loadConstant,
  loadMap,
  mod32,
  mov,
  rsh,
  st,
  stx,
  type Program,
  type Step,
} from '../../lib/bpf/assembler.ts'

const symbols = { maps: { services: 7 }, constants: { cookie: 0x1122334455667788n } }
const hex = (program: Program) => assemble(program, symbols).toString('hex')

t.test('words', async (t) => {
  // RFC 9669: opcode, src and dst, offset, immediate; little-endian.
  const rows: readonly (readonly [step: Step, text: string, hex: string])[] = [
    [mov('r6', 'r1'), 'r6 = r1', 'bf16000000000000'],
    [mov('r1', -111), 'r1 = -111', 'b701000091ffffff'],
    [rsh('r1', 32), 'r1 >>= 32', '7701000020000000'],
    [add32('r0', 'r9'), 'w0 += w9', '0c90000000000000'],
    [mod32('r0', 'r1'), 'w0 %= w1', '9c10000000000000'],
    [ldx('u32', 'r2', 'r1', 4), 'r2 = *(u32 *)(r1 + 4)', '6112040000000000'],
    [ldx('u64', 'r1', 'r10', -48), 'r1 = *(u64 *)(r10 - 48)', '79a1d0ff00000000'],
    [stx('u16', 'r10', -2, 'r3'), '*(u16 *)(r10 - 2) = r3', '6b3afeff00000000'],
    [st('u8', 'r10', -1, 3), '*(u8 *)(r10 - 1) = 3', '720affff03000000'],
    [st('u32', 'r10', -8, 0xffff0000), '*(u32 *)(r10 - 8) = 0xffff0000', '620af8ff0000ffff'],
    [call('map_lookup_elem'), 'call bpf_map_lookup_elem#1', '8500000001000000'],
    [exit(), 'exit', '9500000000000000'],
    [loadMap('r1', 'services'), 'r1 = map services', '18110000070000000000000000000000'],
    [loadConstant('r1', 'cookie'), 'r1 = constant cookie', '18010000887766550000000044332211'],
  ]
  for (const [step, text, bytes] of rows) {
    t.equal(step.text, text)
    t.equal(hex([step]), bytes, text)
  }
})

t.test('jumps count words, wide ones as two', async (t) => {
  const program = [
    label('again'),
    jeq('r0', 0, 'end'),
    loadMap('r1', 'services'),
    jset('r1', 2, 'again'),
    ja('end'),
    label('end'),
    exit(),
  ]
  t.equal(
    listing(program),
    `again:
   0: if r0 == 0 goto end
   1: r1 = map services
   3: if r1 & 2 goto again
   4: goto end
end:
   5: exit
`,
  )
  t.match(hex(program), /^15000400.{40}4501fcff020000000500000000000000/)
})

t.test('what cannot be assembled', async (t) => {
  const rows: readonly (readonly [program: Program, error: RegExp])[] = [
    [[ja('nowhere')], /label nowhere is not there/],
    [[label('a'), label('a')], /label a is there twice/],
    [[loadMap('r1', 'none')], /no such value: r1 = map none/],
    [[loadConstant('r1', 'none')], /no such value/],
    [[ja('far'), ...Array<Step>(40_000).fill(exit()), label('far')], /40000 words is too far/],
  ]
  for (const [program, error] of rows) t.throws(() => assemble(program, symbols), error)
})
